"""One run: the cast acts for a while, losses are planted, the daemon is stopped, killed and frozen; then the account."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from quiet import houses, scripts
from quiet.losses import WAVE, Planter
from quiet.stage import Stage
from quiet.table import Table

LONG_S = 300.0
TAIL_S = 20.0  # after the acting: the last stories end, services drain, the last loss is found and told
LATE_S = 2.0  # for a false alarm that comes after everything else
DONE = {"stop": "stopped", "kill": "killed", "freeze": "frozen", "down": "down for longer than the lease"}


@dataclass(frozen=True)
class Scale:
    """How much of everything fits into so many seconds."""

    seconds: float

    @property
    def long(self) -> bool:
        """Whether there is room for everything."""
        return self.seconds >= LONG_S

    @property
    def acting_s(self) -> float:
        """How long the cast acts."""
        return max(self.seconds - TAIL_S, 5.0)

    @property
    def lease_s(self) -> float:
        """Longer than a client backs off and a stall of the network together: after a daemon that took 10 s to stop, since a
        request was half sent, or was frozen for long, a client waits for up to 10 s.
        """
        return 15.0 if self.long else 13.0

    @property
    def freeze_s(self) -> float:
        """Longer than the lease, and than what the daemon takes for a freeze."""
        return 60.0 if self.long else 14.0

    @property
    def short_freeze_s(self) -> float:
        """Shorter than the lease, longer than what the daemon takes for a freeze."""
        return self.lease_s / 2

    @property
    def stall_s(self) -> float:
        """Longer than a service that speaks each second may be silent."""
        return 4.0 if self.long else 2.5

    @property
    def deploys(self) -> int:
        """Rolling deploys of the web service."""
        return 20 if self.long else 3

    @property
    def waves(self) -> int:
        """100 losses in all in the long run."""
        return 7 if self.long else 2


@dataclass
class Account:
    """What came of it. `unfinished`: quiet tasks still open at the end, by name; nobody may be missing from `books` either."""

    table: Table
    books: dict[str, Counter[str]]
    unfinished: list[str] = field(default_factory=list)
    unheard: list[str] = field(default_factory=list)
    bad_lines: list[str] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    ledger: dict[str, int] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """Everything that is wrong, in words."""
        open_ = [f"still open at the end, though its client told its end: {what}" for what in self.unfinished]
        open_ += [f"the daemon logged an error: {line[:2000]}" for line in self.bad_lines]
        return self.table.wrong + open_ + [f"never heard of: {name}" for name in self.unheard] + self._miscounted()

    def _miscounted(self) -> list[str]:
        terms = ("succeeded", "failed", "cancelled", "in_time", "gap")
        ledger, planted = self.ledger, len(self.table.planted)
        wrong = [] if ledger["tasks"] == sum(ledger[term] for term in terms) else [f"the ledger does not add up: {ledger}"]
        return wrong + ([] if ledger["loose"] == planted else [f"{ledger['loose']} loose ends, {planted} planted"])

    def __str__(self) -> str:
        tasks = sum(sum(states.values()) for states in self.books.values())
        acts = ", ".join(f"{count} {what}" for what, count in sorted(self.acts.items()))
        terms = ", ".join(f"{name} {value}" for name, value in self.ledger.items())
        return f"{tasks:,} tasks of {len(self.books)} names; {acts}; ledger: {terms}\n{self.table}"


def small(stage: Stage, seconds: float, patience_s: float) -> Account:
    """A few stories and losses: what the harness is proven with."""
    stage.begin()
    planter = Planter(stage)
    with _Acts(stage) as acts:
        acts.begin(scripts.play, stage, scripts.SHORT, ())
        for kind in ("hang", "refuse", "collect"):
            planter.order(kind)
        stage.goes_on(seconds)
        stage.stopping.set()
    return account(stage, planter, patience_s, stories=scripts.SHORT)


def whole(stage: Stage, scale: Scale) -> Account:
    """Everything."""
    stage.begin()
    planter, web = Planter(stage), houses.Web(stage)
    held, acting_s, seen = houses.Held(stage, planter), scale.acting_s, Counter[str]()
    with _Acts(stage) as acts:
        acts.begin(scripts.play, stage, scripts.OFTEN, scripts.SELDOM)
        acts.begin(web.load)
        acts.begin(web.roll, scale.deploys, acting_s * 0.6 / scale.deploys)
        acts.begin(houses.prefork, stage)
        acts.begin(houses.steady, stage)
        acts.begin(houses.frozen, stage, acting_s * 0.15, scale.freeze_s + 1)
        acts.begin(houses.far, stage, acting_s * 0.4, scale.short_freeze_s, scale.stall_s, seen)
        acts.begin(_trouble, stage, scale, seen)
        acts.begin(_plant, stage, scale, planter, web)
        stage.goes_on(acting_s * 0.9)
        held.deliver()
        stage.goes_on(acting_s * 0.1)
        acts.wait_for(_trouble, _plant, web.roll)
        stage.stopping.set()
    web.end()
    seen["rolling deploys"] = web.deploys
    names = ("web.mail", "web.audit", "web.push", "web.watch_forever", "prefork.row", "prefork.poll_forever")
    made = account(stage, planter, scale.lease_s + TAIL_S, stories=(*scripts.OFTEN, *scripts.SELDOM), names=names)
    made.acts = seen
    return made


def _trouble(stage: Stage, scale: Scale, seen: Counter[str]) -> None:
    """What happens to the daemon, spread over the run."""
    stop, kill, down = ("stop", 0.0), ("kill", 0.0), ("down", scale.lease_s + 5)
    long, short = ("freeze", scale.freeze_s), ("freeze", scale.short_freeze_s)
    plan = [stop, long, kill] if not scale.long else [stop, kill, short, long, kill, down, stop, kill, short, kill]
    for what, seconds in plan:
        if not stage.goes_on(scale.acting_s * 0.5 / len(plan)):
            return
        if what == "freeze":
            stage.freeze_daemon(seconds)
        else:
            stage.restart_daemon(signal.SIGKILL if what == "kill" else signal.SIGTERM, seconds)
        seen[f"times the daemon was {DONE[what]}"] += 1


def _plant(stage: Stage, scale: Scale, planter: Planter, web: houses.Web) -> None:
    """The waves of losses, spread over the run; what the stage's end leaves out is planted at once, so that the sum is right."""
    for number in range(scale.waves):
        stage.goes_on(scale.acting_s * 0.7 / scale.waves)
        planter.wave(web.port)
        if number == 0:
            houses.killed_far(stage, planter, scale.freeze_s + TAIL_S)
    assert len(planter.planted) == scale.waves * WAVE + 2, f"{len(planter.planted)} planted"


class _Acts:
    """Threads for acts; what the first of them raises stops the run and is raised at the end: the rest may come of it."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._pool = stage, ThreadPoolExecutor(16)
        self._begun: dict[Callable[..., object], Future[object]] = {}
        self._errors: list[BaseException] = []

    def __enter__(self) -> _Acts:
        return self

    def begin(self, act: Callable[..., object], *args: object) -> None:
        """Call it in a thread."""
        future = self._pool.submit(act, *args)
        future.add_done_callback(self._note)
        self._begun[act] = future

    def _note(self, done: Future[object]) -> None:
        error = done.exception()
        if error is not None:
            self._errors.append(error)
            self._stage.stopping.set()

    def wait_for(self, *acts: Callable[..., object]) -> None:
        """Until these are through."""
        for act in acts:
            self._begun[act].result()

    def __exit__(self, *_: object) -> None:
        self._stage.stopping.set()
        self._pool.shutdown()
        for error in self._errors:
            error.add_note(self._stage.last_words())
            raise error


def account(stage: Stage, planter: Planter, patience_s: float, *, stories: Sequence[str], names: Sequence[str] = ()) -> Account:
    """Once everything planted is found and told (or patience ends), and a moment after that."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until and (_table(stage, planter).missing or stage.unfinished()):
        time.sleep(0.1)
    time.sleep(LATE_S)
    books = stage.books()
    wanted = [f"story.{name}" for name in stories] + list(names)
    ledger = stage.api("ledger")
    shown = ("tasks", "succeeded", "failed", "cancelled", "in_time", "gap", "loose")
    return Account(
        table=_table(stage, planter),
        books=books,
        unfinished=stage.unfinished(),
        bad_lines=stage.bad_lines(),
        unheard=[name for name in wanted if name not in books],
        ledger={name: ledger[name] for name in shown},
    )


def _table(stage: Stage, planter: Planter) -> Table:
    return Table(planter.planted, stage.judged(), stage.told(), stage.strays())
