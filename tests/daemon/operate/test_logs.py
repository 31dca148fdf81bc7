"""The daemon's own log: one JSON object a line where nobody watches, text that cannot be forged where somebody does."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from looseends_daemon.serve import JsonFormatter, TextFormatter
from receivers import configuration

FORGED = 'GET /x\n{"level": "error"}\r\x1b[2Jbye\u2028'


def record(message: str, *args: Any, error: BaseException | None = None) -> logging.LogRecord:
    about = (type(error), error, None) if error is not None else None
    return logging.LogRecord("looseends", logging.WARNING, "x.py", 1, message, args, about)


def test_a_message_that_quotes_lines_is_one_json_object() -> None:
    line = JsonFormatter().format(record("refused %s", FORGED))
    assert "\n" not in line
    assert "\x1b" not in line
    said = json.loads(line)
    assert (said["level"], said["logger"], said["message"]) == ("warning", "looseends", f"refused {FORGED}")
    assert said["at"].endswith("Z")


def test_a_traceback_is_a_field_of_the_same_object() -> None:
    said = json.loads(JsonFormatter().format(record("failed", error=ValueError("a\nb"))))
    assert "ValueError: a\nb" in said["traceback"]


def test_text_is_one_line_without_control_characters() -> None:
    line = TextFormatter().format(record("refused %s", FORGED))
    assert line == 'WARNING looseends: refused GET /x\\n{"level": "error"}\\r\\x1b[2Jbye\\u2028'


@pytest.mark.parametrize(("form", "level", "said"), [("auto", "info", 2), ("json", "warning", 1), ("text", "info", 2)])
def test_level_and_form_are_those_of_the_configuration(processes: Any, state_dir: Path, form: str, level: str, said: int) -> None:
    """A socket of systemd's that is not there makes a warning; a task rule that cannot change makes none."""
    file = configuration(state_dir, 0, f'[log]\nlevel = "{level}"\nformat = "{form}"\n')
    daemon = processes.start(
        sys.executable, "-m", "looseends.cli", "serve", "-c", file, env={"NOTIFY_SOCKET": f"{state_dir}/nobody"}
    )
    daemon.wait_for("Ctrl-C stops")
    daemon.signal(1)
    daemon.wait_for("systemd cannot be notified")
    if said == 2:
        daemon.wait_for("reloaded: nothing changed")
    assert daemon.stop() == 0
    lines = [line for line in daemon.lines if "notified" in line or "reloaded" in line]
    assert len(lines) == said
    if form == "text":
        assert lines[0].startswith("WARNING looseends: systemd cannot be notified")
    else:
        assert [json.loads(line)["level"] for line in lines] == ["warning", "info"][:said]
