"""The confusion table: what was planted against what was found, cause by cause, and every false alarm by its kind. Pure.

Rules: a loss is found if its task has exactly one judgement, the right one, with the right words; it is told if a verified
notice says the same. Whatever else was judged or told is a false alarm, also where it was taken back.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SHOWN_MAX = 12
PROBLEMS = ("lost", "stuck", "stalled", "never_started", "missed", "failed")
GONE = r"killed or crashed|another process of its user"
OUT_OF_SIGHT = r"not heard for|connection"


@dataclass(frozen=True)
class Cause:
    """What a planted loss must be found as: its problem, and words that its reason must hold (a pattern)."""

    problem: str
    words: str


CAUSES = {
    "killed in mid-task": Cause("lost", GONE),
    "killed while captured work ran": Cause("lost", GONE),
    "killed out of sight": Cause("lost", OUT_OF_SIGHT),
    "killed, its spool held back": Cause("lost", GONE),
    "silent for good": Cause("lost", OUT_OF_SIGHT),
    "its pool broke": Cause("lost", "its worker pool broke"),
    "loop shutdown": Cause("lost", "event loop was shut down"),
    "garbage-collected": Cause("lost", "garbage-collected"),
    "hung past its deadline": Cause("stuck", r"stuck in \w+\.py:\d+ .+; no end within 1\.5 s; its process is alive"),
    "no progress": Cause("stalled", r"stalled in \w+\.py:\d+ .+; no progress within 1 s"),
    "loop blocked, never started": Cause("never_started", "scheduled, but had not begun by"),
    "queued, never started": Cause("never_started", "scheduled, but had not begun by"),
    "retry that never came": Cause("never_started", "its next attempt was due by"),
    "dropped by a neighbour": Cause("never_started", "an earlier background task of the same response raised"),
    "raised for good": Cause("failed", "ValueError"),
}


@dataclass(frozen=True)
class Loss:
    """A planted loss; `key` is the key of its task, which nobody else has."""

    key: str
    cause: str


@dataclass(frozen=True)
class Said:
    """One word of the daemon about one task: a judgement, or the task's line in a notice."""

    task: str
    key: str | None
    name: str
    problem: str
    reason: str

    def __str__(self) -> str:
        return f"{self.task} {self.name} {self.key or ''}: {self.reason}"


class Table:
    """`judged`: every judgement ever made. `told`: every task in a verified notice. `strays`: notices about no task at all."""

    def __init__(self, planted: Sequence[Loss], judged: Iterable[Said], told: Iterable[Said], strays: Iterable[str] = ()) -> None:
        self.planted = planted
        self.judged, self.told = _by_key(judged), _by_key(told)
        keys = {loss.key for loss in planted}
        self.false_alarms: dict[str, list[str]] = defaultdict(list)
        for kind, known in (("", self.judged), ("notice of ", self.told)):
            for said in (said for key, found in known.items() if key not in keys for said in found):
                self.false_alarms[f"{kind}{said.problem}"].append(str(said))
        if stray := list(strays):
            self.false_alarms["notice of no task"] = stray

    def problem(self, loss: Loss) -> str:
        """The column a loss was found in: its problem, `none`, or `several` where it was judged more than once."""
        found = self.judged.get(loss.key, [])
        return "none" if not found else found[0].problem if len(found) == 1 else "several"

    def has_words(self, loss: Loss) -> bool:
        """Whether the judgement names the cause."""
        return any(re.search(CAUSES[loss.cause].words, said.reason) for said in self.judged.get(loss.key, []))

    def is_told(self, loss: Loss) -> bool:
        """Whether a notice says what this loss is, and why."""
        cause = CAUSES[loss.cause]
        said = self.told.get(loss.key, [])
        return any(one.problem == cause.problem and re.search(cause.words, one.reason) for one in said)

    @property
    def missing(self) -> list[Loss]:
        """What is not yet found, or not yet told."""
        return [loss for loss in self.planted if self._faults(loss)]

    @property
    def wrong(self) -> list[str]:
        """Every wrong cell in words; empty: all that was planted was found with its cause and told, and nothing else was."""
        faults = [f"{loss.cause}, {loss.key}: {fault}" for loss in self.planted for fault in self._faults(loss)]
        return faults + [f"false alarm, {kind}: {said}" for kind, found in sorted(self.false_alarms.items()) for said in found]

    def _faults(self, loss: Loss) -> list[str]:
        cause, problem = CAUSES[loss.cause], self.problem(loss)
        said = "; ".join(f"{one.problem}, {one.reason!r}" for one in self.judged.get(loss.key, []))
        if problem != cause.problem:
            return [f"found as {problem}, not as {cause.problem} ({said or 'nothing was said'})"]
        words = [] if self.has_words(loss) else [f"its reason does not match {cause.words!r}: {said}"]
        return words if words or self.is_told(loss) else ["found, and no notice told of it"]

    def __str__(self) -> str:
        columns = (*PROBLEMS, "several", "none", "reason", "told")
        lines = [" " * 34 + "".join(f"{column:>14}" for column in ("planted", *columns))]
        lines += [self._row(cause, columns) for cause in CAUSES if any(loss.cause == cause for loss in self.planted)]
        total = sum(len(found) for found in self.false_alarms.values())
        lines.append(f"false alarms: {total}")
        for kind, found in sorted(self.false_alarms.items()):
            lines += [f"  {kind}: {len(found)}", *(f"    {said}" for said in found[:SHOWN_MAX])]
        return "\n".join(lines)

    def _row(self, cause: str, columns: Sequence[str]) -> str:
        losses = [loss for loss in self.planted if loss.cause == cause]
        cells = Counter(self.problem(loss) for loss in losses)
        cells["reason"] = sum(map(self.has_words, losses))
        cells["told"] = sum(map(self.is_told, losses))
        shown = (f"{cells[column] or '.':>13}{'*' if column == CAUSES[cause].problem else ' '}" for column in columns)
        return f"  {cause:<32}{len(losses):>14}" + "".join(shown)


def _by_key(said: Iterable[Said]) -> Mapping[str, list[Said]]:
    """Words about one task together; what has no key stands under its id."""
    found: dict[str, list[Said]] = defaultdict(list)
    for one in said:
        found[one.key or one.task].append(one)
    return found
