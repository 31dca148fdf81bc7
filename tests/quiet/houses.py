"""What must not alarm, as real processes: rolling deploys under load, prefork, a frozen service, one behind a bad network.

Each act is called in a thread of its own, acts until the stage stops, and ends its processes in order.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import harness
from quiet.losses import Planter, post
from quiet.proxy import Proxy
from quiet.stage import Stage, freeze

READY_S, END_S = 40.0, 30.0
LOAD_S = 0.15
STALL_EVERY_S = (4.0, 8.0)
CUT_SHARE, CUT_BEFORE_S = 0.5, 0.7
"""Every other stall begins with all connections cut, at that moment or so long before: some are back by then, some are not."""
NOWHERE = "http://127.0.0.1:1"


class Web:
    """A uvicorn service that is deployed again and again: the new one first, then SIGTERM to the old, which drains."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.deploys = stage, 0
        self.port, self._process = self._start()

    def _start(self) -> tuple[int, harness.Process]:
        port = harness.free_port()
        args = ("-m", "uvicorn", "web:app", "--port", str(port), "--no-access-log")
        process = self.stage.service(*args)
        process.wait_for("Uvicorn running on", READY_S)
        return port, process

    def roll(self, times: int, every_s: float) -> None:
        """So many deploys, so far apart."""
        while self.deploys < times and self.stage.goes_on(every_s):
            old = self._process
            self.port, self._process = self._start()
            self._end(old)
            self.deploys += 1

    def load(self) -> None:
        """Requests, one after the other, to whichever is the newest."""
        number = 0
        while self.stage.goes_on(LOAD_S):
            number += 1
            post(self.port, f"/work?key=web-{number}&s={self.stage.chance.uniform(0.02, 0.6):.2f}")

    def end(self) -> None:
        """The last one goes, too."""
        self._end(self._process)

    def _end(self, process: harness.Process) -> None:
        process.signal(signal.SIGTERM)
        process.wait(END_S)
        self.stage.processes.started.remove(process)


def prefork(stage: Stage) -> None:
    """gunicorn with forked workers, replaced by number of requests and by SIGHUP."""
    port = harness.free_port()
    args = ("-m", "gunicorn", "-c", "prefork_settings.py", "-b", f"127.0.0.1:{port}", "prefork:app")
    process = stage.service(*args)
    process.wait_for("Listening at", READY_S)
    requests = 0
    while stage.goes_on(LOAD_S):
        post(port, "/")
        requests += 1
        if requests % 100 == 0:
            process.signal(signal.SIGHUP)
    process.signal(signal.SIGTERM)
    process.wait(END_S)


def steady(stage: Stage) -> None:
    """A service whose tasks end in time, though only just, and make the progress they promised."""
    process = _at_work(stage, "quiet-steady", "short", "close", "moving")
    stage.stopping.wait()
    _leave(process)


def frozen(stage: Stage, after_s: float, seconds: float) -> None:
    """A service on this host that stands still for longer than the lease: its lock says that it lives."""
    process = _at_work(stage, "quiet-frozen", "short")
    if stage.goes_on(after_s):
        freeze(process, seconds)
    stage.stopping.wait()
    _leave(process)


def far(stage: Stage, after_s: float, freeze_s: float, stall_s: float, seen: Counter[str]) -> None:
    """A service on another host, as far as the daemon can tell: a spool it does not watch, a network that loses answers, cuts
    connections and stalls again and again, and it stands still itself; each for less than the lease.
    """
    proxy = Proxy(stage.port)
    env = {"LOOSEENDS_URL": f"http://127.0.0.1:{proxy.port}", "LOOSEENDS_SPOOL_DIR": str(stage.folder / "far")}
    process, frozen_at = _at_work(stage, "quiet-far", "short", "distant", "distant", **env), time.monotonic() + after_s
    while stage.goes_on(stage.chance.uniform(*STALL_EVERY_S)):
        if stage.chance.random() < CUT_SHARE:
            proxy.cut_all()
            stage.goes_on(stage.chance.uniform(0, CUT_BEFORE_S))
        proxy.stall(stall_s)
        if frozen_at is not None and time.monotonic() >= frozen_at and stage.goes_on(stall_s):
            freeze(process, freeze_s)
            frozen_at = None
    _leave(process)
    proxy.close()
    assert proxy.cut and proxy.stalls and frozen_at is None, "the network was too good, or nothing stood still"
    seen["answers lost"], seen["times the network stalled"] = proxy.cut, proxy.stalls


def killed_far(stage: Stage, planter: Planter, patience_s: float) -> None:
    """A process out of the daemon's sight is killed in mid-task: a loss."""
    env = {"LOOSEENDS_URL": f"http://127.0.0.1:{stage.port}", "LOOSEENDS_SPOOL_DIR": str(stage.folder / "far-doomed")}
    key = planter.key("killed out of sight")
    process = planter.doomed("quiet-far-doomed", f"killed={key}", **env)
    harness.wait_until(lambda: _is_known(stage, key), "the daemon to hear of a task out of its sight", patience_s)
    planter.kill(process)


def _is_known(stage: Stage, key: str) -> bool:
    with stage.look() as conn:
        return conn.execute("SELECT 1 FROM task WHERE key = ?", (key,)).fetchone() is not None


class Held:
    """The spool of a process that no daemon ever heard of: it did its work, was killed in mid-task, and is found much later."""

    def __init__(self, stage: Stage, planter: Planter) -> None:
        self.stage, self.folder = stage, stage.folder / "held"
        env = {"LOOSEENDS_URL": NOWHERE, "LOOSEENDS_SPOOL_DIR": str(self.folder)}
        process = planter.doomed("quiet-held", f"killed={planter.key('killed, its spool held back')}", **env)
        planter.kill(process)

    def deliver(self) -> None:
        """Move its journal to where the daemon looks."""
        self.stage.watched.mkdir(mode=0o700, parents=True, exist_ok=True)
        (journal,) = Path(self.folder).iterdir()
        os.rename(journal, self.stage.watched / journal.name)


def _at_work(stage: Stage, service: str, *kinds: str, **env: str) -> harness.Process:
    process = stage.service("steady.py", service, *kinds, env=env, stdin=True)
    process.wait_for("at work", READY_S)
    return process


def _leave(process: harness.Process) -> None:
    process.hang_up()
    code = process.wait(END_S)
    assert code == 0, f"a service did not leave in order ({code}):\n{process.output}"
