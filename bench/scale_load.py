"""Ten million tasks under load: how soon what is due is judged, and what forgetting a million costs those who report."""

from __future__ import annotations

import json
import signal
import sqlite3
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from house import House

from looseends.wire import NS

DETECTION_P99_MS_MAX = 100.0
EVENTS_PER_S = 5_000
POST_EVENTS = 100
LOAD_S = 60.0
DUE_PER_S = 20
SEE_S = 0.004
SLICE_S = 5.0
SLICES = 10
ANSWERS_PER_S = 40
Line = tuple[str, str, str, bool | None]


def _id() -> str:
    """Ordered by time, as the client's are."""
    return str(uuid.UUID(int=(time.time_ns() // 1_000_000 << 80) | 0x8 << 76 | 0b10 << 62 | uuid.uuid4().int & ((1 << 62) - 1)))


class Load(threading.Thread):
    """Posts at an even pace, each when it is due; `took` holds (due, seconds) of each, and `late` how many began late."""

    def __init__(self, house: House, posts_per_s: float, tasks: int, due_every: int = 0) -> None:
        super().__init__(daemon=True)
        self._house, self._pace, self._tasks, self._due_every = house, 1 / posts_per_s, tasks, due_every
        self._ending = threading.Event()
        self.took: list[tuple[float, float]] = []
        self.due: dict[bytes, int] = {}

    def run(self) -> None:
        """Until `end`."""
        line, began, number = self._house.connection(), time.perf_counter(), 0
        while not self._ending.is_set():
            body, due = self._body(number), began + number * self._pace
            number += 1
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            line.request("POST", "/api/v1/events", body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"a batch was answered with {answer.status}")
            self.took.append((due, time.perf_counter() - due))

    def end(self) -> None:
        """Stop, and wait for the last answer."""
        self._ending.set()
        self.join()

    def _body(self, number: int) -> bytes:
        now = time.time_ns()
        events: list[dict[str, Any]] = []
        for n in range(self._tasks):
            same = {"task": _id(), "service": "service-1", "name": f"service-1.job_{n % 20}"}
            events.append({"type": "started", "at": now - 9_000_000, "args": {"order_id": n, "text": "x" * 70}, **same})
            events.append({"type": "finished", "at": now - 1_000_000, "duration": 0.008, **same})
        if self._due_every and number % self._due_every == 0:
            task = _id()
            events.append({"type": "started", "task": task, "service": "service-2", "name": "due", "at": now, "deadline": 2})
            self.due[uuid.UUID(task).bytes] = now + 2 * NS
        return json.dumps(events).encode()


def detection(house: House) -> Iterator[Line]:
    """Tasks that fall due while others are told of: from `due_at` to the moment at which another connection sees the verdict."""
    time.sleep(7.0)  # nothing is judged in the first moments after a start
    posts = EVENTS_PER_S / POST_EVENTS
    load = Load(house, posts, POST_EVENTS // 2, due_every=max(1, round(posts / DUE_PER_S)))
    began, begun = time.monotonic(), time.time_ns()
    load.start()
    seen: dict[bytes, float] = {}
    conn = sqlite3.connect(f"file:{house.path}?mode=ro", uri=True, isolation_level=None)
    while time.monotonic() - began < LOAD_S:
        time.sleep(SEE_S)
        # The verdicts are loose ends; those begun since then are few, and stand in the index of loose ends.
        for (task,) in conn.execute("SELECT id FROM task WHERE loose = 1 AND began_at > ?", (begun,)):
            seen.setdefault(task, time.time_ns())
    load.end()
    conn.close()
    waits = sorted((seen[task] - due) / 1e6 for task, due in load.due.items() if task in seen)
    missed = sum(task not in seen and due < begun + int((LOAD_S - 5) * NS) for task, due in load.due.items())
    rate = len(load.took) * POST_EVENTS / LOAD_S
    p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    yield "events/s while detection was measured", f"{rate:,.0f}", "", None
    yield from _answers("  answers meanwhile", [seconds for _, seconds in load.took])
    figure = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {waits[-1]:.1f} ms (n {len(waits)}, {missed} not judged)"
    met = p99 <= DETECTION_P99_MS_MAX and not missed
    yield "due to verdict, seen by another connection", figure, f"p99 {DETECTION_P99_MS_MAX:g} ms", met


def retention(keeping: House, forgetting: House) -> Iterator[Line]:
    """Two daemons in turn, one of which forgets all the while it is looked at: p99 of an answer, and how many tasks went.

    The one that forgets is stopped (SIGSTOP) while the other is measured: it must not forget on its neighbour's time.
    """
    took: dict[House, list[list[float]]] = {keeping: [], forgetting: []}
    removed: list[float] = []
    for _ in range(SLICES):
        for house in (keeping, forgetting):
            forgetting.process.send_signal(signal.SIGCONT if house is forgetting else signal.SIGSTOP)
            time.sleep(0.5)
            load = Load(house, ANSWERS_PER_S, 10)
            load.start()
            time.sleep(1.0)
            before, began = _removed(house), time.perf_counter()
            time.sleep(SLICE_S)
            ended = time.perf_counter()
            if house is forgetting:
                removed.append((_removed(house) - before) / (ended - began))
            load.end()
            took[house].append([seconds for due, seconds in load.took if began <= due < ended])
    forgetting.process.send_signal(signal.SIGCONT)
    rate = statistics.median(removed)
    ratios = [_p(on, 0.99) / _p(off, 0.99) for off, on in zip(took[keeping], took[forgetting], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    figure = f"{rate:,.0f}: a million in {1e6 / max(rate, 1) / 60:.1f} min ({_removed(forgetting):,} went here)"
    yield "tasks forgotten a second, beside ingest", figure, "", None
    for what, house in (("without", keeping), ("with", forgetting)):
        yield from _answers(f"answers {what} forgetting", [s for part in took[house] for s in part])
    yield "p99 of an answer with forgetting / without", f"{middle:.2f} (n {len(ratios)}, {low:.2f} to {high:.2f})", "", None


def _removed(house: House) -> int:
    return int(house.ask("/api/v1/storage")["removed"])


def _p(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _answers(what: str, seconds: list[float]) -> Iterator[Line]:
    figure = f"p50 {_p(seconds, 0.5) * 1000:.1f} ms, p99 {_p(seconds, 0.99) * 1000:.1f} ms (n {len(seconds)})"
    yield what, figure, "", None
