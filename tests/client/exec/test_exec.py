"""A command under `looseends exec` is what it would be without it, and leaves the record of a task."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import wait_until

Events = list[dict[str, Any]]
Left = Callable[[], Events]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Begin = Callable[..., "subprocess.Popen[str]"]


def kinds(events: Events) -> list[str]:
    return [event["type"] for event in events]


def test_a_command_that_ends_well_is_a_task_that_did(run: Run, left: Left) -> None:
    done = run("--name", "nightly", "--deadline", "2h", "--key", "2026-11-20", "--tag", "tier=gold", "--", "echo", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    started, finished = left()
    assert (started["type"], started["name"], started["key"], started["deadline"]) == ("started", "nightly", "2026-11-20", 7200)
    assert (started["args"], started["source"], started["declared"]) == ({"command": ["echo", "hello"]}, "exec", True)
    assert (started["tags"], started["service"]) == ({"tier": "gold"}, "cron")
    assert "copy its command line" in started["not_replayable_because"]
    assert finished["type"] == "finished" and finished["duration"] > 0
    assert finished["result"] == {"exit_code": 0, "output": "hello", "output_bytes": 6}


def test_an_exit_code_is_passed_on_and_its_last_output_is_the_error(run: Run, left: Left) -> None:
    done = run("--", "sh", "-c", "echo step one; echo disk full >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "step one\n", "disk full\n")
    started, failed = left()
    assert started["name"] == "sh"
    assert failed["error"]["type"] == "ExitCode"
    assert failed["error"]["message"].startswith("exit code 7: ")
    assert sorted(failed["error"]["traceback"].split("\n")) == ["disk full", "step one"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_whoever_waits_for_us_sees_the_signal_that_killed_the_command(run: Run, left: Left, number: int) -> None:
    done = run("--", "sh", "-c", f"kill -{int(number)} $$")
    assert done.returncode == -number
    _, failed = left()
    assert (failed["type"], failed["error"]["type"]) == ("failed", "Signal")
    assert failed["error"]["message"] == f"killed by {signal.Signals(number).name}"


def test_a_command_that_is_not_there_or_cannot_run_is_said_and_recorded(run: Run, left: Left, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("echo run by the shell $1\n")
    missing = run("--", "no-such-command-anywhere")
    assert (missing.returncode, missing.stderr) == (127, "looseends: no-such-command-anywhere: No such file or directory\n")
    forbidden = run("--", str(tmp_path / "text"))
    assert forbidden.returncode == 126 and "Permission denied" in forbidden.stderr
    (tmp_path / "text").chmod(0o755)
    script = run("--", str(tmp_path / "text"), "as ever")
    assert (script.returncode, script.stdout) == (0, "run by the shell as ever\n")
    errors = [event["error"]["type"] for event in left() if event["type"] == "failed"]
    assert errors == ["CommandNotFound", "CommandNotRunnable"]


def test_signals_sent_to_us_reach_the_command(begin: Begin, left: Left) -> None:
    script = "trap 'echo got hup' HUP; trap 'echo got usr1' USR1; trap 'echo got term; exit 5' TERM; echo ready; "
    process = begin("--", "sh", "-c", script + "while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for name, said in (("HUP", "got hup\n"), ("USR1", "got usr1\n"), ("TERM", "got term\n")):
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stdout.readline() == said
    assert process.wait(10) == 5
    assert left()[-1]["error"]["message"] == "exit code 5: got term"


def test_stop_and_continue_are_passed_on(begin: Begin) -> None:
    process = begin("--", "sh", "-c", "echo $$; while :; do sleep 0.05; done")
    assert process.stdout is not None
    inner = int(process.stdout.readline())
    process.send_signal(signal.SIGTSTP)
    wait_until(lambda: state_of(inner) == "T" and state_of(process.pid) == "T", "both to be stopped")
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: state_of(inner) in "RS" and state_of(process.pid) in "RS", "both to go on")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    try:
        return state_of(pid) != "Z"
    except FileNotFoundError:
        return False


def test_a_signal_that_a_program_sent_is_no_wish_of_a_person(begin: Begin, left: Left) -> None:
    process = begin("--", "sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == -signal.SIGINT
    assert left()[-1]["error"]["message"].startswith("killed by SIGINT")


def test_the_command_dies_with_us_and_its_task_has_no_end(begin: Begin, left: Left) -> None:
    process = begin("--", "sh", "-c", "echo $$; exec sleep 60")
    assert process.stdout is not None
    inner = int(process.stdout.readline())
    assert is_alive(inner)
    process.kill()
    process.wait(10)
    wait_until(lambda: not is_alive(inner), "the command to die with us")
    assert kinds(left()) == ["started"]


def test_without_the_bond_the_command_would_survive_us(begin: Begin, tmp_path: Path) -> None:
    """The fault planted: what the test above sees is the bond, and not an accident."""
    planted = (
        "import sys; from looseends import command, launch; launch._prctl = lambda *_: None\n"
        "sys.exit(command.main(['--', 'sh', '-c', 'echo $$; exec sleep 60']))"
    )
    process = subprocess.Popen([sys.executable, "-c", planted], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    inner = int(process.stdout.readline())
    process.kill()
    process.wait(10)
    process.stdout.close()
    assert is_alive(inner)
    os.kill(inner, signal.SIGKILL)


def test_a_shortage_of_threads_or_terminals_is_said_or_does_without(run: Run, left: Left) -> None:
    planted = (
        "import os, sys; from looseends import command, relay\n"
        "def none(*_): raise {error}\n"
        "{what} = none\n"
        "sys.exit(command.main(['--', 'sh', '-c', 'echo ran; exit 3']))"
    )
    for what, error, code, said in (
        ("relay.threading.Thread.start", "RuntimeError('no more')", 126, "Resource temporarily unavailable"),
        ("os.pipe", "OSError(24, 'Too many open files')", 126, "Too many open files"),
        ("command.channels", "OSError(24, 'Too many open files')", 3, "the output of a command is not kept"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", planted.format(what=what, error=error)], capture_output=True, text=True, timeout=20
        )
        assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr, (what, done)
    errors = [event["error"]["type"] for event in left() if event["type"] == "failed"]
    assert errors == ["CommandNotRunnable", "ExitCode"]


def test_children_are_waited_for_where_they_were_ignored(spool: str) -> None:
    """Whoever ignores SIGCHLD has the kernel reap its children, exit codes included."""
    look = "import sys, signal; sys.exit(3 if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN else 4)"
    begun = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'looseends.cli', 'exec', '--', sys.executable, '-S', '-c', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", begun, look], timeout=20)
    assert done.returncode == 3, "and the command finds it ignored"


def test_its_start_is_on_disk_before_the_command_begins(run: Run, left: Left, spool: str) -> None:
    look = (
        "import sys; from looseends import journal, slots\n"
        f"[folder] = journal.folders({spool!r})\n"
        "data = open(folder + '/00000001.seg', 'rb').read()\n"
        "print(journal.is_held(folder), data[slots.HEADER_BYTES])"
    )
    assert run("--", sys.executable, "-c", look).stdout == "True 1\n"


def test_wrong_usage_is_one_line_and_exit_code_2(run: Run, left: Left) -> None:
    for words, said in (
        ([], "which command?"),
        (["--name", "x", "--"], "which command?"),
        (["--nmae", "x", "true"], "there is no --nmae; did you mean --name?"),
        (["--zzz", "true"], "allowed are --name, --deadline"),
        (["--name"], "--name needs a value"),
        (["--name=", "true"], "--name needs a value"),
        (["--name", "a", "--name", "b", "true"], "--name was given 2 times"),
        (["--deadline", "soon", "true"], '--deadline is a number of seconds, a text such as "500ms"'),
        (["--tag", "gold", "true"], "--tag is NAME=TEXT"),
        (["--output", "some", "true"], "--output is one of all, errors, none, not 'some'"),
        (["--key", "x" * 300, "true"], "--key is 1 to 200 printable characters"),
        (["--name", "a\nb", "true"], "name is 1 to 200 printable characters"),
    ):
        done = run(*words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, (words, done)
    assert left() == []


def test_help_has_an_example_and_names_every_option(run: Run) -> None:
    from looseends import command

    done = run("--help")
    assert done.returncode == 0 and "examples:\n  looseends exec --name nightly.backup" in done.stdout
    assert [name for name in command._VALUES if name not in done.stdout] == []
    assert run("--", "sh", "-c", "echo $1", "sh", "--help").stdout == "--help\n", "the command's own words are its own"


def test_switched_off_it_is_the_command_itself(run: Run, spool: str) -> None:
    env = {"LOOSEENDS_DISABLED": "1"}
    done = run("--", "sh", "-c", "cat /proc/$$/comm; exit 4", env=env)
    assert (done.stdout, done.returncode) == ("sh\n", 4)
    assert not Path(spool).exists()
    assert run("--", "no-such-command-anywhere", env=env).returncode == 127


def test_the_command_inherits_what_we_were_given(run: Run, tmp_path: Path) -> None:
    """Environment, folder, standard input, no descriptor of ours, no signal blocked or ignored by us."""
    look = (
        "import os, sys, json\n"
        "status = open('/proc/self/status').read()\n"
        "masks = {l.split(':')[0]: int(l.split()[1], 16) for l in status.splitlines() if l.startswith(('SigBlk', 'SigIgn'))}\n"
        "fds = sorted(int(fd) for fd in os.listdir('/proc/self/fd'))\n"
        "print(json.dumps([os.getcwd(), sys.stdin.read(), os.environ.get('LOOSEENDS_SERVICE'), masks, fds[:-1]]))"
    )
    done = run("--service", "other", "--", sys.executable, "-S", "-c", look, cwd=tmp_path, input="given")
    bare = subprocess.run(
        [sys.executable, "-S", "-c", look], capture_output=True, text=True, check=True, cwd=tmp_path, input="given"
    )
    folder, given, service, masks, fds = json.loads(done.stdout)
    assert (folder, given, service) == (str(tmp_path), "given", None)
    assert (masks, fds) == (json.loads(bare.stdout)[3], json.loads(bare.stdout)[4])


def test_secrets_of_the_command_line_are_in_neither_record_nor_output(run: Run, left: Left) -> None:
    done = run(
        *("--redact", "zebra", "--", "sh", "-c", "echo $1 $2 $4; exit 1", "sh", "--password=hunter2hunter2", "--token"),
        *("tok-canary-1", "zebra=stripes99", "https://u:pw-canary@host/x"),
    )
    assert "hunter2hunter2" in done.stdout, "the terminal sees what it would see"
    text = json.dumps(left())
    for secret in ("hunter2hunter2", "tok-canary-1", "stripes99", "pw-canary"):
        assert secret not in text
    assert "[redacted]" in text and "https://u:" in text


def test_many_and_odd_words_are_bounded_and_the_command_gets_them_whole(run: Run, left: Left) -> None:
    odd = b"\xff".decode("utf-8", "surrogateescape")
    done = run("--", "sh", "-c", 'echo $# $(printf %s "$1" | wc -c)', "sh", odd, *["w" * 50] * 2_000)
    assert done.stdout == "2001 1\n"
    words = left()[0]["args"]["command"]
    assert len(words) <= 201 and words[4] == "\\xff" and "more" in words[-1]


def test_a_spool_that_cannot_be_written_stops_no_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = {"LOOSEENDS_SPOOL_DIR": str(tmp_path / "file/x"), "TMPDIR": str(tmp_path / "file/y")}
    done = run("--", "sh", "-c", "echo ran; exit 3", env=env)
    assert (done.returncode, done.stdout) == (3, "ran\n")
    assert "tasks are not recorded" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("listens", [False, True])
def test_without_a_daemon_it_waits_for_none(spool: str, listens: bool) -> None:
    """An hour of patience is not used up where nobody listens. (Planted: where somebody does and never answers, it is.)"""
    patient = "import sys; from looseends import command; command.GOODBYE_S = 3600.0; sys.exit(command.main(['--', 'true']))"
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        if listens:
            mute.listen(1)
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        done = subprocess.Popen([sys.executable, "-c", patient], env={**os.environ, "LOOSEENDS_URL": url})
        try:
            if not listens:
                assert done.wait(20) == 0
                return
            asked, _ = mute.accept()
            assert asked.recv(4) and done.poll() is None, "it waits for an answer"
            asked.close()
        finally:
            done.kill()
            done.wait()


def test_home_comes_from_the_user_where_the_environment_has_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """systemd sets no HOME for root; `/` would be a spool that no daemon watches."""
    for name in ("HOME", "LOOSEENDS_SPOOL_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "import os; from looseends import command; from looseends.lifecycle import PROCESS\n"
        "command._introduce(command.read(['true'])); print(PROCESS.settings().spool, PROCESS.settings().service)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    import pwd

    assert done.stdout.split() == [f"{pwd.getpwuid(os.getuid()).pw_dir}/.local/state/looseends/spool", "tests"]
