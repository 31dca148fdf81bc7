"""What may be forgotten, and when: by age, by size, never while somebody still has to look at it.

Rules:

1. A task that is open, or a loose end, is never removed: not by age, not for space, not by a purge.
2. A task that ended well or was cancelled goes `finished` after its end; one that failed, or ever was a loose end, goes `failed`
   after its end, or after the last word about it, whichever came later.
3. A task and its replays are one chain: they go together, when the last of them may.
4. For space the oldest go first, in the order of STAGES; after the last stage new facts are refused.

Pure: times are ns, sizes are bytes.
"""

from __future__ import annotations

from looseends.wire import NS
from looseends_daemon.core.resources import STATES, Value

DAY_NS = 86_400 * NS
STAGES = ("payloads", "finished", "failed")
"""What is given up for space, one after the other: payloads of what ended, then its rows, then failed and once loose ones."""
EASED = 0.95
"""Giving up ends when this share of the limit is reached, so that it does not begin anew with the next batch."""
OVERRUN = 1.05
"""While something is still being given up, facts are taken up to this share of the limit."""
RESERVE_BYTES_MAX = 64 << 20
RESERVE_SHARE = 0.02
WARN_DAYS = 7.0
FORECAST_NS_MIN = 3_600 * NS
FORECAST_TASKS_MIN = 1_000
"""With fewer, the empty file outweighs what it holds, and nothing is said about a day."""
_ENDED = tuple(STATES.index(state) for state in ("succeeded", "failed", "cancelled"))
_FAILED = STATES.index("failed")


class Rules(Value, frozen=True):
    """How long ended tasks are kept after their end (ns), and how many bytes the whole may take."""

    finished: int
    failed: int
    size_bytes_max: int


class Kept(Value, frozen=True):
    """What the rules need to know of a stored task. `judged_at`: the last word about it, None where nobody ever said one."""

    state: int
    loose: bool
    settled: bool
    verdict: bool
    ended_at: int | None
    judged_at: int | None = None


def over_since(task: Kept) -> int | None:
    """When everything about a task was over (ns); None: it is open, or a loose end."""
    if task.loose:
        return None
    if task.state not in _ENDED and not (task.verdict and task.settled):
        return None
    return max(task.ended_at or 0, task.judged_at or 0)


def stage_of(task: Kept) -> str:
    """Which class an ended task belongs to: finished, or failed (which once loose ones do too)."""
    return "failed" if task.state == _FAILED or task.judged_at is not None else "finished"


def may_go(task: Kept, rules: Rules, now: int) -> bool:
    """Whether the time of this task has passed."""
    over = over_since(task)
    if over is None:
        return False
    return over + (rules.failed if stage_of(task) == "failed" else rules.finished) <= now


def without_age(rules: Rules, stage: str) -> Rules:
    """The rules while a stage of giving up is under way: its class and those before it have no time left."""
    failed = 0 if stage == "failed" else rules.failed
    return Rules(finished=0, failed=failed, size_bytes_max=rules.size_bytes_max)


ANY_AGE = Rules(finished=0, failed=0, size_bytes_max=0)
"""A purge: whatever is over may go."""


# --- size -------------------------------------------------------------------------------------------------------------


class Sizes(Value, frozen=True):
    """What the storage takes (bytes). `used`: pages that hold something; `file`: all pages and the write-ahead log.

    `free`: pages of the file that hold nothing and are used again first.
    """

    used: int
    file: int
    disk_free: int
    disk_total: int
    free: int = 0


def limit_of(sizes: Sizes, rules: Rules) -> int:
    """The bytes that may be used: `max_size`, or what the disk has left less a reserve for what must still be written."""
    return max(0, min(rules.size_bytes_max, sizes.file + sizes.disk_free - reserve_of(sizes.disk_total)))


def reserve_of(disk_total: int) -> int:
    """The bytes of a disk of this size that are left for what must still be written."""
    return min(RESERVE_BYTES_MAX, int(disk_total * RESERVE_SHARE))


def is_over(sizes: Sizes, rules: Rules) -> bool:
    """Whether something has to be given up."""
    return sizes.used > limit_of(sizes, rules)


def is_eased(sizes: Sizes, rules: Rules) -> bool:
    """Whether enough was given up."""
    return sizes.used <= limit_of(sizes, rules) * EASED


def refusal(sizes: Sizes, rules: Rules, exhausted: bool) -> str | None:
    """Why no new facts are taken now, with the way out; None: they are. `exhausted`: nothing is left to give up."""
    limit = limit_of(sizes, rules)
    if sizes.used <= limit or (not exhausted and sizes.used <= limit * OVERRUN):
        return None
    if limit < rules.size_bytes_max:
        return f"the disk is nearly full ({size_text(sizes.disk_free)} left): free some of it, nothing here may be removed"
    left = "nothing that may be removed is left" if exhausted else "what is over is being removed"
    return (
        f"the storage is full ({size_text(sizes.used)} of {size_text(limit)}): {left}; raise [storage] max_size,"
        " or settle loose ends and purge"
    )


def size_text(count: int) -> str:
    """Bytes as people read them: "640 B", "12.4 MiB", "10 GiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


class Growth(Value, frozen=True):
    """What was counted: tasks in all, tasks of the last day (or since the first, `span` ns ago)."""

    tasks: int
    recent: int
    span: int


class Forecast(Value, frozen=True):
    """Where the size is going. `days_left` None: it levels off below its limit, at about `levels_off_at` bytes."""

    bytes_per_task: float
    bytes_per_day: float
    levels_off_at: int
    limit: int
    days_left: float | None

    @property
    def is_near(self) -> bool:
        """Whether somebody should act within the week."""
        return self.days_left is not None and self.days_left < WARN_DAYS


def forecast(sizes: Sizes, rules: Rules, growth: Growth) -> Forecast:
    """The size if every day were like the last one. Finished tasks dominate, so they set where it levels off."""
    per_task = sizes.used / growth.tasks if growth.tasks >= FORECAST_TASKS_MIN else 0.0
    per_day = per_task * growth.recent * DAY_NS / max(growth.span, FORECAST_NS_MIN)
    level = int(per_day * rules.finished / DAY_NS)
    limit = limit_of(sizes, rules)
    days = None
    if sizes.used >= limit:
        days = 0.0
    elif per_day > 0 and max(level, sizes.used) > limit:
        days = (limit - sizes.used) / per_day
    return Forecast(bytes_per_task=per_task, bytes_per_day=per_day, levels_off_at=level, limit=limit, days_left=days)
