"""What a process is told, by environment and `init`, and what an import costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import looseends
from looseends import cli, trouble
from looseends.lifecycle import PROCESS
from looseends.settings import Settings, program_name, resolve, seconds


def resolved(environ: dict[str, str], **given: Any) -> Settings:
    return resolve(environ, given, home="/nowhere", temporary="/tmp", program="worker", uid=7)


def test_the_environment_comes_before_init_and_init_before_the_defaults() -> None:
    assert resolved({}).service == "worker" and resolved({}, service="a").service == "a"
    assert resolved({"OTEL_SERVICE_NAME": "otel"}, service="a").service == "otel"
    assert resolved({"LOOSEENDS_SERVICE": "env", "OTEL_SERVICE_NAME": "otel"}, service="a").service == "env"


def test_the_defaults_are_those_of_the_contract() -> None:
    found = resolved({})
    assert found.spool == "/nowhere/.local/state/looseends/spool" and found.fallback_spool == "/tmp/looseends-7"
    assert resolved({"XDG_STATE_HOME": "/x"}).spool == "/x/looseends/spool"
    assert resolved({"LOOSEENDS_SPOOL_DIR": "/y"}).spool == "/y"
    assert (found.environment, found.release, found.url, found.token, found.disabled) == ("production", None, None, None, False)


def test_a_token_may_come_from_a_file_and_a_broken_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("id.secret.key\n")
    assert resolved({"LOOSEENDS_TOKEN_FILE": str(file)}).token == "id.secret.key"
    missing = resolved({"LOOSEENDS_TOKEN_FILE": str(tmp_path / "none")})
    assert missing.token is None and "cannot be read" in missing.complaints[0]
    broken = resolved({"LOOSEENDS_TOKEN": "onepart"})
    assert broken.token is None and "<id>.<secret>.<order key>" in broken.complaints[0] and "onepart" not in broken.complaints[0]


def test_odd_names_are_cleaned_and_said() -> None:
    found = resolved({"LOOSEENDS_SERVICE": "a\x00b" + "c" * 300})
    assert len(found.service) == 200 and "printable" in found.complaints[0]
    assert resolved({}, service=3).complaints == ("init(service=...) takes text, not int; ignored",)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("30s", 30),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("2h", 7200),
        ("1d", 86400),
        (5, 5),
        (0.25, 0.25),
        ("1.5h", 5400),
        ("never", "never"),
    ],
)
def test_durations_are_read(written: Any, value: Any) -> None:
    assert seconds(written, "x") == value


@pytest.mark.parametrize(
    "written", ["", "s", "30", "30x", "1.2.3s", "-5s", -1, True, None, "1h x", 1e12, "9" * 400 + "d", float("nan")]
)
def test_wrong_durations_name_place_and_forms(written: Any) -> None:
    with pytest.raises(ValueError, match='deadline is a number of seconds, a text such as .*"never"'):
        seconds(written, "deadline")


@pytest.mark.parametrize(
    ("argv0", "name"),
    [("/srv/worker.py", "worker"), ("/x/shop/__main__.py", "shop"), ("/usr/bin/uvicorn", "uvicorn"), ("-c", "c"), ("", "")],
)
def test_a_service_without_a_name_is_called_after_its_program(argv0: str, name: str) -> None:
    assert program_name(argv0) == name


@pytest.mark.parametrize("given", [{"service": 3}, {"url": "nonsense"}, {"token": "x"}, {"spool_dir": "/proc/nope"}])
def test_init_never_raises(spool: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> None:
    monkeypatch.delenv("LOOSEENDS_SPOOL_DIR")
    monkeypatch.delenv("LOOSEENDS_URL")
    looseends.init(**given)
    with looseends.track("x"):
        pass


def test_init_after_the_first_task_says_so(spool: str) -> None:
    with looseends.track("x"):
        pass
    looseends.init(service="late")
    assert trouble.COUNTS["init came after the first task"] == 1


def test_an_import_starts_nothing_and_stays_light() -> None:
    code = (
        "import sys, threading; before = set(sys.modules); import looseends\n"
        "@looseends.task\ndef f(): ...\n@looseends.task(replay=True)\nasync def g(): ...\n"
        "import json; print(json.dumps([threading.active_count(), sorted(set(sys.modules) - before)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    threads, modules = json.loads(done.stdout)
    assert threads == 1
    heavy = {"asyncio", "http", "http.client", "logging", "inspect", "dataclasses", "urllib.parse", "datetime", "ssl", "msgspec"}
    assert heavy & set(modules) == set()
    assert {m.split(".")[0] for m in modules} <= set(sys.stdlib_module_names) | {"looseends"}


def test_a_broken_log_handler_does_not_reach_the_task(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    def broken(*_: object) -> None:
        raise RuntimeError("handler")

    monkeypatch.setattr(logging.Logger, "warning", broken)
    monkeypatch.setenv("LOOSEENDS_SPOOL_DIR", "/proc/nope")
    monkeypatch.setenv("TMPDIR", "/proc/nope")
    with looseends.track("x") as task:
        assert len(task.id) == 36
    assert PROCESS.journal is None and trouble.COUNTS["log"] >= 1


def test_a_trouble_is_said_once_a_minute_and_counted_always(caplog: pytest.LogCaptureFixture) -> None:
    trouble._said_at.pop("planted", None)
    before = trouble.COUNTS.get("planted", 0)
    for _ in range(5):
        trouble.note("planted", "detail")
    assert caplog.text.count("planted") == 1 and trouble.COUNTS["planted"] == before + 5


def test_version_needs_only_the_client(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.strip() == looseends.__version__


def test_without_the_daemon_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "looseends_daemon.cli", None)
    assert cli.main(["serve"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and 'pip install "looseends[daemon]"' in said
