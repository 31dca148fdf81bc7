"""What must not alarm, told by hand: each script is one story of one or a few tasks, a generator that yields pauses (s).

Every story ends in order within 15 s or so, whenever the run is stopped.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from quiet.raw import NS, Instance, new_task
from quiet.stage import Stage

DAY_S, HOUR_S = 86_400, 3_600
QUEUE_S = (3.0, 12.0)  # how deep: at the scale of this run, in which work starts within 3 s, minutes
Story = Iterator[float]


class Troupe:
    """The instances of the stories. Who leaves during the run is made by the story itself."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.chance = stage, stage.chance
        self.near = stage.instance("quiet-near")
        self.worker, self.producer = stage.instance("quiet-worker"), stage.instance("quiet-producer")
        self.behind = stage.instance("quiet-behind", clock_off_s=-HOUR_S)
        self.ahead = stage.instance("quiet-ahead", clock_off_s=HOUR_S)
        self.stammering = stage.instance("quiet-stammering", twice_every=3)
        self.all = [self.near, self.worker, self.producer, self.behind, self.ahead, self.stammering]

    # --- stories ---

    def normal(self) -> Story:
        """Without a deadline of its own: the daemon's default counts."""
        yield from _run(self.near, "story.normal", self.chance.uniform(0.3, 0.8))

    def clock_behind(self) -> Story:
        """A host whose clock is an hour slow."""
        yield from _run(self.behind, "story.clock_behind", 1.0, deadline=4)

    def clock_ahead(self) -> Story:
        """A host whose clock is an hour fast."""
        yield from _run(self.ahead, "story.clock_ahead", 1.0, deadline=4)

    def told_twice(self) -> Story:
        """Batches that come again, as after a lost answer."""
        yield from _run(self.stammering, "story.told_twice", 0.5, deadline=4)

    def timer(self) -> Story:
        """Not late before its hour and its time to start have passed."""
        task, wait = new_task(), self.chance.uniform(1.0, 8.0)
        eta = self.near.now() + int(wait * NS)
        self.near.tell("scheduled", task, name="story.timer", eta=eta, start_within=2)
        yield wait + 0.3
        yield from _run(self.near, "story.timer", 0.2, task)

    def revoked(self) -> Story:
        """A timer for tomorrow that is not wanted any more."""
        task = new_task()
        self.near.tell("scheduled", task, name="story.revoked", eta=self.near.now() + DAY_S * NS)
        yield self.chance.uniform(1.0, 6.0)
        self.near.tell("cancelled", task, name="story.revoked", reason="revoked")

    def retried(self) -> Story:
        """Fails twice, waits longer each time, succeeds."""
        task = new_task()
        for attempt, pause in enumerate((1.0, 3.0), start=1):
            yield from _fails(self.near, "story.retried", task, attempt, pause, start_within=2)
            yield pause
        yield from _run(self.near, "story.retried", 0.2, task, attempt=3)

    def retried_in_a_queue(self) -> Story:
        """The next attempt is taken by another instance than the one that failed."""
        task, name = new_task(), "story.retried_in_a_queue"
        self.producer.tell("scheduled", task, name=name, queue="mail")
        yield 1.0
        yield from _fails(self.worker, name, task, 1, 2.0, queue="mail")
        yield 6.0
        yield from _run(self.near, name, 0.2, task, attempt=2, queue="mail")

    def queued(self) -> Story:
        """Waits its turn for minutes at this scale; another instance takes it."""
        yield from self._through_a_queue(self.producer, "story.queued")

    def queued_by_one_that_left(self) -> Story:
        """Its producer said goodbye long before its turn came."""
        producer = self.stage.instance("quiet-departing")
        yield from self._through_a_queue(producer, "story.queued_by_one_that_left", producer.leave)

    def queued_by_one_that_vanished(self) -> Story:
        """Its producer was not heard again; what it had queued is bound to nobody."""
        producer = self.stage.instance("quiet-vanishing")
        gone = "story.queued_by_one_that_vanished"
        yield from self._through_a_queue(producer, gone, lambda: producer.fall_silent(close=True))

    def _through_a_queue(self, producer: Instance, name: str, then: Callable[[], None] | None = None) -> Story:
        tasks = [new_task() for _ in range(3)]
        for task in tasks:
            producer.tell("scheduled", task, name=name, queue="mail", args={"to": "ada"})
        if then is not None:
            yield 0.3
            then()
        yield self.chance.uniform(*QUEUE_S)
        for task in tasks:
            yield from _run(self.worker, name, 0.1, task, queue="mail", deadline=5)

    def handled(self) -> Story:
        """Captured work whose exception somebody dealt with."""
        task, error = new_task(), {"type": "KeyError", "message": "'colour'"}
        self.near.tell("started", task, name="story.handled", declared=False, source="asyncio", request="GET /")
        yield 0.2
        self.near.tell("failed", task, name="story.handled", error=error, handled=True)

    def end_before_start(self) -> Story:
        """The end is told first; the start comes with the next batch."""
        task, at = new_task(), self.near.now()
        self.near.tell("finished", task, name="story.end_before_start", at=at + NS // 5)
        yield 0.5
        self.near.tell("started", task, name="story.end_before_start", at=at, deadline=1)

    def loop(self) -> Story:
        """Captured, without a deadline, as old as its process, and ends with it."""
        short_lived = self.stage.instance("quiet-short-lived")
        short_lived.tell("started", new_task(), name="story.loop", declared=False, source="asyncio")
        yield 1.5
        short_lived.leave()

    def a_day_late(self) -> Story:
        """An instance never heard before tells of yesterday, starts first; it says that there is more to come."""
        late = self.stage.instance("quiet-late")
        tasks, at, name = [new_task() for _ in range(20)], late.now() - DAY_S * NS, "story.a_day_late"
        late.behind = len(tasks)
        for task in tasks:
            late.tell("started", task, name=name, at=at, deadline=2)
        yield 2.5
        for task in tasks:
            late.tell("finished", task, name=name, at=at + NS, duration=1.0)
        late.behind = 0
        late.leave()


def _run(me: Instance, name: str, seconds: float, task: str = "", attempt: int = 1, **fields: object) -> Story:
    task = task or new_task()
    me.tell("started", task, name=name, attempt=attempt, **fields)
    yield seconds
    me.tell("finished", task, name=name, attempt=attempt, duration=seconds)


def _fails(me: Instance, name: str, task: str, attempt: int, pause: float, **fields: object) -> Story:
    me.tell("started", task, name=name, attempt=attempt, **fields)
    yield 0.1
    retry_at = me.now() + int(pause * NS)
    error = {"type": "ConnectionError", "message": "refused"}
    me.tell("failed", task, name=name, attempt=attempt, error=error, will_retry=True, retry_at=retry_at)


OFTEN = (
    *("normal", "clock_behind", "clock_ahead", "told_twice", "timer", "revoked", "retried", "retried_in_a_queue"),
    *("queued", "handled", "end_before_start"),
)
SHORT = ("normal", "clock_behind", "clock_ahead", "told_twice", "handled", "end_before_start", "loop")
SELDOM = ("loop", "queued_by_one_that_left", "queued_by_one_that_vanished", "a_day_late")
OFTEN_S, SELDOM_S, STEP_S, LEAVE_S = 0.25, 5.0, 0.02, 10.0


def play(stage: Stage, often: Sequence[str], seldom: Sequence[str]) -> None:
    """Begin these stories in turn until the run stops, play all of them to their end, and leave in order."""
    troupe, playing = Troupe(stage), _Playing()
    turns = [(itertools.cycle(names), every_s) for names, every_s in ((often, OFTEN_S), (seldom, SELDOM_S)) if names]
    next_at = [0.0] * len(turns)
    while not stage.stopping.is_set() or playing.stories:
        now = time.monotonic()
        for n, (names, every_s) in enumerate(turns):
            if not stage.stopping.is_set() and now >= next_at[n]:
                next_at[n] = now + every_s
                playing.begin(now, getattr(troupe, next(names))())
        playing.go_on(now)
        time.sleep(STEP_S)
    for instance in troupe.all:
        instance.leave()
    for instance in troupe.all:
        instance.join(stage.lease_s + LEAVE_S)


class _Playing:
    """Stories under way, each with the time of its next step (monotonic s)."""

    def __init__(self) -> None:
        self.stories: list[tuple[float, int, Story]] = []
        self._numbers = itertools.count()

    def begin(self, now: float, story: Story) -> None:
        """Its first step is due now."""
        heapq.heappush(self.stories, (now, next(self._numbers), story))

    def go_on(self, now: float) -> None:
        """Every step that is due."""
        while self.stories and self.stories[0][0] <= now:
            _, number, story = heapq.heappop(self.stories)
            pause = next(story, None)
            if pause is not None:
                heapq.heappush(self.stories, (now + pause, number, story))
