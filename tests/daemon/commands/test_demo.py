"""`looseends demo`: it loses work, finds all of it, and leaves nothing behind."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import harness

CLI = (sys.executable, "-m", "looseends.cli", "demo")


def test_every_loss_is_found_and_nothing_stays(processes: harness.Processes, state_dir: Path) -> None:
    demo = processes.start(*CLI, "--once", env={"TMPDIR": str(state_dir)})
    assert demo.wait(90) == 0, demo.output
    for found in ("audit.write_row is failed", "partner.notify is stuck", "mail.send_receipt is lost", "every loss was found"):
        assert found in demo.output
    assert list(state_dir.glob("looseends-demo-*")) == []


def test_it_stays_up_until_ctrl_c(processes: harness.Processes) -> None:
    before = set(Path(tempfile.gettempdir()).glob("looseends-demo-*"))
    demo = processes.start(*CLI)
    demo.wait_for("Press  Replay", 90)
    demo.signal(signal.SIGINT)
    assert demo.wait(30) == 0, demo.output
    assert "has been ended" in demo.output
    assert set(Path(tempfile.gettempdir()).glob("looseends-demo-*")) <= before
