"""Plays a history against the pure functions alone: no server, no database, no clock.

A history is a timeline in seconds from `clock`. A step is one of
    {"at", "from", "event", "clock_off"?}          an event of an instance (null: of none), told at `at` unless it says when
    {"at", "instance", "is", "reason", "caught_up"} news of an instance
    {"at", "replay": {"of", "as"}}                  an order was issued: the new task's id is `as`
    {"at", "expect": {...}}                         a rule expects something (expecting.py)
    {"at", "judge": true}                           the detector runs
`starts` says when instances started, where that matters.
`expect` holds subsets of the tasks, the five terms of the ledger, the judgements in order, and the incidents by cause.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import expecting
import msgspec
from expecting import task_id as task_id

from looseends.wire import NS, check_batch, parse_time, skew_of
from looseends_daemon.core.detect import Finding, InstanceNow, World, due_of, judge
from looseends_daemon.core.facts import Cells, Fact, fold
from looseends_daemon.core.judgements import Judgement, LooseChange, Replayed, Standing, conclude, incident_key
from looseends_daemon.core.loops import is_sight, may_be_sight
from looseends_daemon.core.stats import TERMS, place_of
from looseends_daemon.core.view import View, end_with_process, take_back_end, view_of

FOLDER = Path(__file__).parent / "histories"


def histories() -> dict[str, dict[str, Any]]:
    """Every history by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def wire_event(history: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """A step's event as it would be posted: absolute times, real ids."""
    clock = parse_time(history["clock"])
    event = dict(step["event"])
    told = event.get("at", step["at"])
    event["task"] = task_id(event["task"])
    event["at"] = clock + int((told + step.get("clock_off", 0)) * NS)
    for name in ("eta", "retry_at"):
        if name in event:
            event[name] = clock + int((event[name] + step.get("clock_off", 0)) * NS)
    for name in ("parent", "replay_of"):
        if name in event:
            event[name] = task_id(event[name])
    return event


def wire_batch(history: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """A step's event in the envelope of its instance."""
    sent_at = parse_time(history["clock"]) + int((step["at"] + step.get("clock_off", 0)) * NS)
    batch: dict[str, Any] = {"sent_at": sent_at, "events": [wire_event(history, step)]}
    if step["from"] is not None:
        batch["instance"] = {"id": step["from"], "service": history["instances"][step["from"]]}
        if step["from"] in history.get("starts", {}):
            started = history["starts"][step["from"]] + step.get("clock_off", 0)
            batch["instance"]["started_at"] = parse_time(history["clock"]) + int(started * NS)
    return batch


class Model:
    """The daemon's mind without its body: facts, standings and judgements in dictionaries."""

    def __init__(self, history: dict[str, Any]) -> None:
        self.history = history
        self.clock = parse_time(history["clock"])
        self.policy = expecting.policy_of(history)
        self.expected: dict[str, Cells] = {}
        self.cells: dict[str, Cells] = {}
        self.judgements: dict[str, list[Judgement]] = {}
        self.standing: dict[str, Standing] = {}
        self.instances: dict[str, InstanceNow] = {}
        self.orders: dict[str, str] = {}
        self.changes: list[LooseChange] = []
        self.duplicates = 0
        self.lived_at: dict[str, int] = {}
        self.ends_alone: set[tuple[str, str]] = set()

    def play(self) -> None:
        """Take every step in order."""
        for step in self.history["steps"]:
            self.take(step)

    def take(self, step: dict[str, Any]) -> None:
        """One step."""
        now = self.clock + int(step["at"] * NS)
        if "event" in step:
            self._event(step, now)
        elif "instance" in step:
            self._news(step, now)
        elif "replay" in step:
            self.orders[task_id(step["replay"]["as"])] = task_id(step["replay"]["of"])
        elif "expect" in step:
            for one, body, at in expecting.stated(self.history, step):
                self.expected[one] = {(1, ""): {"expected": Fact(at=at, said_at=at, body=body)}}
        elif step.get("judge"):
            self.detect(now)

    def _event(self, step: dict[str, Any], now: int) -> None:
        batch = check_batch(wire_batch(self.history, step), now)
        assert not batch.rejected, batch.rejected
        skew = skew_of(batch.sent_at, now)
        who = step["from"]
        for event in batch.events:
            for name in ("at", "eta", "retry_at"):
                if name in event:
                    event[name] += skew
            if who is not None and who not in self.instances:
                self.instances[who] = InstanceNow(id=who, state="alive", started_at=self._start_of(who))
            if who is not None:
                self.lived_at[who] = max(event["at"], self.lived_at.get(who, 0))
            kept = self.expected if event["type"] == "expected" else self.cells
            if not fold(kept.setdefault(event["task"], {}), event, who):
                self.duplicates += 1

    def _news(self, step: dict[str, Any], now: int) -> None:
        who = step["instance"]
        self.instances[who] = InstanceNow(
            id=who,
            state=step["is"],
            reason=step["reason"],
            caught_up=step["caught_up"],
            behind_since=now,
            last_heard_at=now,
            started_at=self._start_of(who),
            ended_at=None if step["is"] == "alive" else now,
        )

    def _start_of(self, who: str) -> int | None:
        started = self.history.get("starts", {}).get(who)
        return None if started is None else self.clock + int(started * NS)

    def _learn(self) -> None:
        """Which types were seen to finish by themselves: remembered for ever."""
        for _, view in self.views():
            if may_be_sight(view) and is_sight(view.ended_at or 0, self.lived_at.get(view.instance or "", 0)):
                self.ends_alone.add((view.service, view.name))

    def views(self) -> Iterator[tuple[str, View]]:
        """Every task with what its facts say."""
        for task, cells in self.cells.items():
            yield task, view_of(cells)

    def detect(self, now: int) -> None:
        """The detector runs until nothing more is to be said: replays before the tasks they replay."""
        self._learn()
        world = World(now=now, ready_at=self.clock - NS, instances=self.instances)
        for _ in range(3):
            for task, view in sorted(self.views(), key=lambda pair: pair[0] not in self.orders):
                finding = judge(view, self._world(world, view), self.policy)
                if finding.ends_at is not None:
                    end_with_process(self.cells[task], view, finding.ends_at)
                elif finding.lives_on:
                    take_back_end(self.cells[task])
                if finding.ends_at is not None or finding.lives_on:
                    view = view_of(self.cells[task])
                    finding = judge(view, self._world(world, view), self.policy)
                self._conclude(task, view, finding, now)
            self._expectations(world, now)

    def _world(self, world: World, view: View) -> World:
        return msgspec.structs.replace(world, ends_alone=(view.service, view.name) in self.ends_alone)

    def _expectations(self, world: World, now: int) -> None:
        """Every expectation is paired anew; one of which there is nothing to say stays no task."""
        caught_up = all(one.caught_up for one in self.instances.values() if one.state == "alive")
        world = msgspec.structs.replace(world, queue_caught_up=caught_up)
        self.expected |= expecting.followers(self.policy, self.cells, self.orders)
        for one, (view, finding) in expecting.findings(self.expected, self.cells, self.orders, world).items():
            if finding.verdict is not None or one in self.standing:
                self._conclude(one, view, finding, now)

    def missed(self) -> Iterator[tuple[str, View]]:
        """The expectations that are tasks now."""
        for one, cells in self.expected.items():
            if self.standing.get(one, Standing()).verdict is not None:
                yield one, view_of(cells)

    def _conclude(self, task: str, view: View, finding: Finding, now: int) -> None:
        before = self.standing.get(task, Standing())
        root = self.orders.get(task)
        done = conclude(
            task,
            view,
            finding,
            before,
            self.policy,
            now,
            replayed=self._replayed(task),
            root_is_loose=root is not None and self.standing.get(root, Standing()).loose,
        )
        self.standing[task] = done.standing
        self.judgements.setdefault(task, []).extend(done.judgements)
        self.changes.extend(done.changes)

    def _replayed(self, task: str) -> Replayed:
        views = [view_of(self.cells[new]) for new, old in self.orders.items() if old == task and new in self.cells]
        succeeded = any(view.state == "succeeded" for view in views)
        return Replayed(succeeded=succeeded, began_at=min((v.began_at for v in views), default=None))

    # --- what came out ---

    def task(self, symbol: str) -> dict[str, Any]:
        """A task as the expectation names its fields; times in seconds of the history."""
        task = expecting.symbol_id(self.history, symbol)
        view, standing = view_of(self.cells.get(task) or self.expected[task]), self.standing.get(task, Standing())
        return {
            "state": view.state,
            "verdict": None if view.ended else standing.verdict,
            "loose": standing.loose,
            "settled": standing.settled,
            "attempt": view.attempt,
            "duration": view.duration,
            "flags": sorted(self._flags(task, view, standing)),
            **{name: self._seconds(getattr(view, name)) for name in ("began_at", "scheduled_at", "started_at", "ended_at")},
            "due_at": self._seconds(due_of(view, self.policy)),
        }

    def _flags(self, task: str, view: View, standing: Standing) -> set[str]:
        flags = {name for name in ("contradiction", "no_start", "redelivered", "ran_twice") if getattr(view, name)}
        if standing.late:
            flags.add("late")
        for new, old in self.orders.items():
            root, began = view_of(self.cells[old]), self._replayed(old).began_at
            twice = root.ended_at is not None and began is not None and root.ended_at >= began
            if twice and task in (new, old):
                flags.add("ran_twice")
        return flags

    def _seconds(self, at: int | None) -> float | None:
        return None if at is None else (at - self.clock) / NS

    def ledger(self) -> dict[str, int]:
        """The five terms, each counted, and their sum as `tasks`."""
        counted = dict.fromkeys(TERMS, 0)
        for task, view in [*self.views(), *self.missed()]:
            standing = self.standing.get(task, Standing())
            place = place_of(view.began_at, view.state, standing.verdict, settled=bool(standing.settled), loose=standing.loose)
            counted[place.term] += 1
        return {"tasks": sum(counted.values()), **counted}

    def incidents(self) -> list[dict[str, str]]:
        """Loose ends by cause: the worst problem, and whether any is still open."""
        found: dict[tuple[str, ...], dict[str, str]] = {}
        first: dict[str, tuple[str, ...]] = {}
        for change in self.changes:
            key = first.setdefault(change.task, incident_key(change))
            one = found.setdefault(key, {"problem": change.problem, key[2]: key[3]})
            if change.what == "changed":
                one["problem"] = change.problem
        for key, one in found.items():
            members = [task for task, its in first.items() if its == key]
            one["state"] = "open" if any(self.standing[task].loose for task in members) else "resolved"
        return list(found.values())
