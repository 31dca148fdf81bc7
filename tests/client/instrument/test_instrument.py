"""`looseends instrument`: real programs, unchanged, captured in every process they begin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
import venv
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import wait_until
from looseends import instrument

APP = """
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route
import os

def send_welcome(email):
    pass

async def register(request):
    return PlainTextResponse(str(os.getpid()), background=BackgroundTask(send_welcome, "ada@example.com"))

app = Starlette(routes=[Route("/register", register)])
"""
INSTRUMENT = (sys.executable, "-m", "looseends.cli", "instrument")


def run(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "LOOSEENDS_SERVICE"} | env
    return subprocess.run([*INSTRUMENT, *words], capture_output=True, text=True, timeout=30, env=environ, cwd=cwd)


def script(folder: Path, source: str, name: str = "program.py") -> str:
    path = folder / name
    path.write_text(textwrap.dedent(source))
    return str(path)


INSTALLED = "import sys; import starlette.applications; from looseends.task import INSTALLED; print(sorted(INSTALLED))"


def ask(port: int) -> int:
    """The pid that answered a registration; 0 while nobody does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/register", timeout=5) as answer:
            return int(answer.read())
    except OSError:
        return 0


def test_an_unchanged_server_is_captured_in_all_its_workers(
    receiver: Any, processes: harness.Processes, port: int, tmp_path: Path
) -> None:
    script(tmp_path, APP, "shop.py")
    words = ("--service", "shop", "--", sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--workers", "2")
    env = {"LOOSEENDS_URL": receiver.url, "LOOSEENDS_SPOOL_DIR": os.environ["LOOSEENDS_SPOOL_DIR"]}
    server = processes.start(*INSTRUMENT, *words, env=env, cwd=tmp_path)
    wait_until(lambda: ask(port), "a worker to answer")
    workers: set[int] = set()
    wait_until(lambda: workers.add(ask(port)) or len(workers - {0}) == 2, "both workers to answer")
    receiver.wait(lambda seen: {batch.instance["pid"] for batch in seen.batches if batch.events} >= workers - {0})
    instances = [batch.instance for batch in receiver.batches]
    assert {instance["service"] for instance in instances} == {"shop"}
    receiver.wait(lambda seen: set(seen.types("shop.send_welcome")) == {"scheduled", "started", "finished"})
    [one, *_] = receiver.of("shop.send_welcome")
    assert one["args"] == {"email": "ada@example.com"} and one["source"] == "starlette"
    server.stop()
    assert "not captured" not in server.output and "Traceback" not in server.output


def test_it_survives_a_reload(receiver: Any, processes: harness.Processes, port: int, tmp_path: Path) -> None:
    app = Path(script(tmp_path, APP, "shop.py"))
    words = ("--", sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--reload", "--reload-delay", "0.1")
    env = {"LOOSEENDS_URL": receiver.url, "LOOSEENDS_SPOOL_DIR": os.environ["LOOSEENDS_SPOOL_DIR"]}
    server = processes.start(*INSTRUMENT, *words, env=env, cwd=tmp_path)
    first = wait_until(lambda: ask(port), "the server to answer")
    receiver.wait(lambda seen: "finished" in seen.types("shop.send_welcome"))
    app.write_text(app.read_text().replace("send_welcome", "send_goodbye"))
    os.utime(app, (time.time() + 5, time.time() + 5))
    wait_until(lambda: ask(port) not in (0, first), "the reloaded server to answer", 30)
    receiver.wait(lambda seen: "finished" in seen.types("shop.send_goodbye"))
    server.stop()


def test_gunicorn_is_captured_behind_its_fork(receiver: Any, processes: harness.Processes, port: int, tmp_path: Path) -> None:
    plain = """
    import os, threading
    import looseends

    @looseends.task(name="send")
    def send(): ...

    def app(environ, start_response):
        send()
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
    """
    script(tmp_path, plain, "plain.py")
    words = ("--service", "prefork", "--", sys.executable, "-m", "gunicorn", "plain:app", "-b", f"127.0.0.1:{port}", "-w", "2")
    env = {"LOOSEENDS_URL": receiver.url, "LOOSEENDS_SPOOL_DIR": os.environ["LOOSEENDS_SPOOL_DIR"]}
    server = processes.start(*INSTRUMENT, *words, "--preload", env=env, cwd=tmp_path)
    pid = wait_until(lambda: ask(port), "a worker to answer")
    receiver.wait(lambda seen: pid in {batch.instance["pid"] for batch in seen.batches})
    server.stop()


def test_a_system_is_installed_when_its_library_appears_and_no_library_is_imported_for_it(spool: str, tmp_path: Path) -> None:
    program = script(
        tmp_path,
        """
        import sys
        from looseends.task import INSTALLED
        print("starlette" in sys.modules, "celery" in sys.modules, "starlette" in INSTALLED)
        import importlib.util
        importlib.util.find_spec("starlette.applications")  # looking is not importing
        import starlette.applications as real
        print("starlette" in INSTALLED, type(real.__loader__).__module__, type(real.__spec__.loader).__module__)
        """,
    )
    done = run("--", sys.executable, program, cwd=tmp_path)
    assert done.stdout == "False False False\nTrue _frozen_importlib_external _frozen_importlib_external\n", done
    assert done.stderr == ""


def test_a_program_that_installs_by_itself_is_told_nothing(spool: str, tmp_path: Path) -> None:
    program = "import starlette.applications, looseends; looseends.install('starlette')"
    done = run("--only", "starlette", "--", sys.executable, "-c", program, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    twice = run("--only", "starlette", "--", sys.executable, "-c", f"{program}; looseends.install('starlette')", cwd=tmp_path)
    assert "was called before" in twice.stderr


def test_only_what_was_asked_for_is_installed(spool: str, tmp_path: Path) -> None:
    assert run("--only", "celery", "--", sys.executable, "-c", INSTALLED, cwd=tmp_path).stdout == "[]\n"
    assert "starlette" in run("--only", "starlette", "--", sys.executable, "-c", INSTALLED, cwd=tmp_path).stdout


def test_a_sitecustomize_and_a_usercustomize_run_as_ever(spool: str, tmp_path: Path) -> None:
    for name in ("sitecustomize", "usercustomize"):
        script(
            tmp_path, f"import sys; print('{name} of theirs', __name__, __file__.rsplit('/', 1)[1])\nHERE = True", f"{name}.py"
        )
    program = script(
        tmp_path,
        """
        import sys, sitecustomize
        print(sitecustomize.HERE, [path for path in sys.path if "autostart" in path])
        from looseends.task import INSTALLED
        import starlette.applications
        print("starlette" in INSTALLED)
        """,
    )
    python = base_python()
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{site_packages()}"}
    bare = subprocess.run([python, "-c", "0"], capture_output=True, text=True, env={**os.environ, **env})
    done = run("--", python, program, cwd=tmp_path, **env)
    assert bare.stdout in done.stdout and "sitecustomize of theirs sitecustomize sitecustomize.py\n" in done.stdout
    assert done.stdout.endswith("True []\nTrue\n"), done
    if "usercustomize" in bare.stdout:
        assert "usercustomize of theirs" in done.stdout


def base_python() -> str:
    """The interpreter itself: inside a virtual environment no usercustomize is run."""
    return os.path.realpath(sys.executable)


def site_packages() -> str:
    import starlette

    assert starlette.__file__ is not None
    return str(Path(starlette.__file__).parent.parent)


def test_a_sitecustomize_that_raises_is_reported_as_ever_and_capture_is_on(spool: str, tmp_path: Path) -> None:
    script(tmp_path, "raise RuntimeError('theirs is broken')", "sitecustomize.py")
    done = run("--", sys.executable, "-c", INSTALLED, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "starlette" in done.stdout
    assert "Error in sitecustomize" in done.stderr and "theirs is broken" in done.stderr


def test_it_reaches_spawned_processes_and_subprocesses(spool: str, tmp_path: Path) -> None:
    program = script(
        tmp_path,
        f"""
        import multiprocessing, subprocess, sys

        def ask():
            import starlette.applications
            from looseends.task import INSTALLED
            print("starlette" in INSTALLED, flush=True)

        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=ask)
            process.start()
            process.join()
            subprocess.run([sys.executable, "-c", {INSTALLED!r}])
        """,
    )
    done = run("--", sys.executable, program, cwd=tmp_path)
    first, second = done.stdout.splitlines()
    assert first == "True" and "starlette" in second


def test_what_cannot_be_installed_is_one_line_and_the_program_goes_on(spool: str, tmp_path: Path) -> None:
    script(tmp_path, "VERSION = 1", "celery.py")  # a library of that name that is none
    done = run(
        "--", sys.executable, "-c", "import celery; print('goes on', celery.VERSION)", cwd=tmp_path, PYTHONPATH=str(tmp_path)
    )
    assert (done.returncode, done.stdout) == (0, "goes on 1\n")
    assert done.stderr.startswith("looseends: celery is not captured: ") and done.stderr.count("\n") == 1, done.stderr


def test_a_library_that_fails_to_import_fails_as_ever_and_may_be_tried_again(spool: str, tmp_path: Path) -> None:
    (tmp_path / "huey.py").write_text("import os\nif not os.path.exists('mended'): raise ValueError('broken')\n")
    program = script(
        tmp_path,
        """
        try:
            import huey
        except ValueError as error:
            print(error, error.__traceback__.tb_next is not None)
        open("mended", "w").close()
        import huey
        print(huey.__name__)
        """,
    )
    done = run("--", sys.executable, program, cwd=tmp_path)
    assert done.stdout == "broken True\nhuey\n"
    assert done.stderr.startswith("looseends: huey is not captured: ")


def test_another_environment_without_looseends_is_captured_too(spool: str, tmp_path: Path) -> None:
    """The program's interpreter need not have us: the launcher's own copy is used, and nothing else of its environment."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    program = script(
        tmp_path,
        """
        import looseends, sys
        with looseends.track("seen"): pass
        try:
            import fastapi
        except ImportError:
            print("nothing else")
        print(sys.prefix != sys.base_prefix)
        """,
    )
    done = run("--", str(tmp_path / "venv/bin/python"), program, cwd=tmp_path)
    assert done.stdout == "nothing else\nTrue\n", done


def test_a_broken_looseends_does_not_break_the_program(spool: str, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    script(tmp_path / "old", "raise RuntimeError('an old one')", "looseends.py")
    line = f'PYTHONPATH="$PYTHONPATH:{tmp_path}/old" exec {sys.executable} -c "print(7)"'
    done = run("--", "sh", "-c", line, cwd=tmp_path)
    assert done.stdout == "7\n"
    assert "looseends: nothing is captured in this Python 3." in done.stderr and "an old one" in done.stderr


def test_the_program_takes_our_place(spool: str, tmp_path: Path, processes: harness.Processes) -> None:
    process = processes.start(
        *INSTRUMENT, "--", sys.executable, "-c", "import os,time; print(os.getpid(), flush=True); time.sleep(60)"
    )
    assert int(process.wait_for(r"\d+")[0]) == process.pid
    process.signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "which program?"),
        (("--only", "asynccio", "--", "python"), 2, "there is no asynccio"),
        (("--only", ",", "--", "python"), 2, "--only names systems; allowed are"),
        (("--onyl", "x"), 2, "did you mean --only?"),
        (("no-such-program-anywhere",), 127, "No such file or directory"),
        (("./text",), 126, "Permission denied"),
        (("--", "python3", "-Ic", "print(1)"), 0, "told to ignore PYTHONPATH"),
        (("--", "python3", "-c", "print('-I')"), 0, ""),
    ],
)
def test_wrong_usage_is_one_line(spool: str, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    (tmp_path / "text").write_text("no program")
    done = run(*words, cwd=tmp_path)
    assert done.returncode == code and said in done.stderr and done.stderr.count("\n") == (1 if said else 0), done


def test_a_script_that_is_not_executable_is_run_by_this_python(spool: str, tmp_path: Path) -> None:
    script(tmp_path, "import sys; print(sys.executable, sys.argv)")
    assert run("program.py", "a", cwd=tmp_path).stdout == f"{sys.executable} ['program.py', 'a']\n"


def test_the_environment_names_our_folder_once() -> None:
    env = instrument.environment({"PYTHONPATH": f"/a{os.pathsep}{instrument.AUTOSTART}{os.pathsep}{os.pathsep}/b"}, "all")
    assert env["PYTHONPATH"] == os.pathsep.join([instrument.AUTOSTART, "/a", "/b"])
    assert instrument.environment(env, "all") == env


def test_help_has_examples(spool: str, tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0 and "looseends instrument --service shop-web -- uvicorn shop:app --workers 2" in done.stdout


def test_every_row_of_the_table_names_a_known_system() -> None:
    from looseends.task import INTEGRATIONS

    assert set(INTEGRATIONS) <= set(instrument.LIBRARIES), "say after which module's import it can be installed"


def test_create_task_of_an_unchanged_program_is_captured(receiver: Any, tmp_path: Path) -> None:
    """The first loss of them all: nobody keeps the task, it raises, and the program ends with 0."""
    program = script(
        tmp_path,
        """
        import asyncio

        async def send_receipt(order_id):
            await asyncio.sleep(0.01)
            raise ConnectionError("relay is down")

        async def main():
            asyncio.create_task(send_receipt(7))
            await asyncio.sleep(0.1)

        asyncio.run(main())
        """,
        "shop.py",
    )
    done = run("--service", "shop", "--", sys.executable, program, cwd=tmp_path, LOOSEENDS_URL=receiver.url)
    assert done.returncode == 0 and "Task exception was never retrieved" in done.stderr, done
    receiver.wait(lambda seen: [event for event in seen.events if event["type"] == "failed"])
    [failed] = [event for event in receiver.events if event["type"] == "failed"]
    [started] = [event for event in receiver.events if event["type"] == "started" and event["task"] == failed["task"]]
    assert failed["error"]["type"] == "ConnectionError" and failed["handled"] is False
    assert started["args"] == {"order_id": 7} and started["source"] == "asyncio" and started["declared"] is False
