"""The planter: real losses among everything that must not alarm, each with a key of its own and one cause.

A wave is one loss of each cause that can be had again and again; what takes a whole host stands in `houses.py`.
"""

from __future__ import annotations

import itertools
from http.client import HTTPConnection
from urllib.parse import urlencode

import harness
from quiet.raw import NS, new_task
from quiet.stage import Stage
from quiet.table import Loss

ORDERS = {
    "hang": "hung past its deadline",
    "stall": "no progress",
    "refuse": "raised for good",
    "collect": "garbage-collected",
    "shut_down": "loop shutdown",
    "block": "loop blocked, never started",
}
"""What the holder does at a word."""
WAVE = 14
WAVE_S = 0.2


class Planter:
    """`planted` grows as losses are planted. `holder` lives, losing work, for as long as the stage does."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.planted = stage, list[Loss]()
        self._numbers = itertools.count(1)
        self._teller = stage.instance("quiet-teller")
        self._holder = stage.service("holder.py", stdin=True)
        self._holder.wait_for("at work")

    def key(self, cause: str) -> str:
        """The key of a new loss, which is planted from now on."""
        loss = Loss(f"loss-{next(self._numbers)}", cause)
        self.planted.append(loss)
        return loss.key

    def wave(self, web_port: int | None = None) -> None:
        """One of each (two by the web service, if there is one), a moment apart."""
        for kind in ORDERS:
            self.order(kind)
            self.stage.goes_on(WAVE_S)
        self._killed()
        self._pool()
        self._queued()
        self._retrying()
        self._silent()
        if web_port is not None:
            self._neighbours(web_port)

    def order(self, kind: str) -> None:
        """Have the holder lose one task."""
        self._holder.say(f"{kind} {self.key(ORDERS[kind])}")

    def doomed(self, service: str, *losses: str, **env: str) -> harness.Process:
        """A process that hangs in the middle of tasks ("killed=loss-7"), and is still to be killed."""
        process = self.stage.service("doomed.py", service, *losses, env=env)
        process.wait_for("at work")
        return process

    def kill(self, process: harness.Process) -> None:
        """SIGKILL."""
        process.kill()
        self.stage.processes.started.remove(process)

    def _killed(self) -> None:
        killed, captured = self.key("killed in mid-task"), self.key("killed while captured work ran")
        self.kill(self.doomed("quiet-doomed", f"killed={killed}", f"captured={captured}"))

    def _pool(self) -> None:
        task = new_task()
        self._teller.tell("started", task, name="loss.pool", key=self.key("its pool broke"), deadline="never")
        self.stage.goes_on(WAVE_S)
        self._teller.tell("dropped", task, name="loss.pool", reason="pool_broken")

    def _queued(self) -> None:
        key = self.key("queued, never started")
        self._teller.tell("scheduled", new_task(), name="loss.queued", key=key, queue="mail", start_within=2)

    def _retrying(self) -> None:
        task, retry_at = new_task(), self._teller.now() + NS
        error = {"type": "ConnectionError", "message": "refused"}
        key = self.key("retry that never came")
        self._teller.tell("started", task, name="loss.retrying", key=key, start_within=2)
        self._teller.tell("failed", task, name="loss.retrying", error=error, will_retry=True, retry_at=retry_at)

    def _silent(self) -> None:
        silent = self.stage.instance("quiet-silent")
        silent.tell("started", new_task(), name="loss.silent", key=self.key("silent for good"), deadline="never")
        silent.fall_silent()

    def _neighbours(self, web_port: int) -> None:
        asked = {"raises": self.key("raised for good"), "dropped": self.key("dropped by a neighbour")}
        post(web_port, f"/refuse?{urlencode(asked)}")


def post(port: int, path: str) -> None:
    """POST to a service on this host. Raises AssertionError for any other answer than 202."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path)
        status = connection.getresponse().status
        assert status == 202, f"POST {path}: {status}"
    finally:
        connection.close()
