"""When an incident opens, is told about again, and resolves: a pure machine whose every step has a named reason.

The rules, in prose:

1. Loose ends that share a cause share an incident: key (environment, service, instance) for `lost`, else (environment,
   service, name). A loose end stays in its first incident. Once an incident is resolved, the next loose end of its key
   begins a new one.
2. A new incident is *pending* while it gathers loose ends (`group_wait`). It opens when enough of one type are open
   (`open_after`); whatever was settled before that needs nobody's attention, and it resolves without a word. Only a
   failure or a loss that would have opened it is still reported although it was mended at once.
3. An *open* incident is told about again at once when its severity rises, after `group_interval` when loose ends joined,
   and after `repeat_interval` when nothing happened. Severity never falls, so whoever heard of the opening hears the end.
4. It *resolves* when nothing of it has been open for `keep_open_for`. Withdrawn loose ends count as if never there.
5. `problem` is the worst that is open now; with nothing open, the last one stands.
6. *Acknowledged* is a mark: somebody has it in hand. It is told once; then nothing is, until it resolves or the mark is cleared:
   when twice as many are open as then, when it became more severe than it was then, or when its time has passed.
7. *Silenced* is a mark: a silence that is in force fits it. The steps are taken, their notices are withheld; the end alone is
   told to whoever heard of the opening. Once no silence fits it any more, what was withheld goes out at once, as one notice.

`RULES` is this table as data. Each rule says from which moment on it holds, so one function gives both the step that is
due and the time at which to look again; there is no polling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from msgspec import structs

from looseends.wire import NEVER, NS
from looseends_daemon.core.matchers import Matcher
from looseends_daemon.core.policy import TaskRule
from looseends_daemon.core.resources import PROBLEMS, SETTLEMENTS, Counts, Value

SEVERITIES = ("info", "warning", "critical")
CRITICAL = ("lost", "never_started", "missed")
GRAVE = ("failed", "lost")
"""Problems that are reported even when they were mended before the incident opened."""
DETAIL_CHARS_MAX = 160
OUTGROWN_TIMES = 2
"""An acknowledgement stands until this many times as many are open as when it was given."""


class EndpointRule(Value, frozen=True, kw_only=True):
    """What the machine must know of an endpoint: who it is, what it wants to hear, what may be told. `timeout` in s.

    `match`: all of them must fit an incident's labels; `max_per_minute` bounds the delivery attempts.
    """

    name: str
    fingerprint: str
    min_severity: str = "info"
    include_args: bool = False
    timeout: float = 15.0
    kind: str = "webhook"
    match: tuple[Matcher, ...] = ()
    max_per_minute: int = 60


class AlertRules(Value, frozen=True, kw_only=True):
    """What the operator decided about incidents. Durations in seconds; `instance` is the name of this daemon.

    `command` is what somebody on its host types to ask it, up to the path of the API.
    """

    group_wait: float = 1.0
    group_interval: float = 60.0
    repeat_interval: float = 14_400.0
    keep_open_for: float = 0.0
    ack_expires: float = 86_400.0
    settle_failed_after: float = 604_800.0
    sample_tasks: int = 10
    tasks: tuple[TaskRule, ...] = ()
    endpoints: tuple[EndpointRule, ...] = ()
    external_url: str | None = None
    instance: str = "looseends"
    command: str | None = None

    def rule(self, service: str, name: str) -> TaskRule | None:
        """The first [[task]] rule whose glob matches this type."""
        full = f"{service}/{name}"
        return next((rule for rule in self.tasks if fnmatchcase(full, rule.match)), None)


class OpenGroup(Value, frozen=True, kw_only=True):
    """How many loose ends of one type with one problem are open in an incident."""

    service: str
    name: str
    problem: str
    count: int


class Taken(Value, frozen=True, kw_only=True):
    """An acknowledgement that stands: since and until when (ns), how many were open and how severe it was then, whether told."""

    at: int
    until: int
    count: int
    severity: str
    told: bool = False


class Standing(Value, frozen=True, kw_only=True):
    """Where an incident stands: what the rules look at. Times in ns; `settled` counts by word.

    `taken`: its acknowledgement. `silenced_until`: when the silence in force ends; `held`: a silence has withheld a notice.
    """

    state: str
    opened_at: int
    severity: str
    open: int = 0
    settled: Mapping[str, int] = {}
    arrivals: int = 0
    ripe: bool = False
    reached: bool = False
    grave: bool = False
    quiet_since: int | None = None
    told: int = 0
    told_at: int | None = None
    told_severity: str | None = None
    taken: Taken | None = None
    silenced_until: int | None = None
    held: bool = False

    @property
    def worth_telling(self) -> bool:
        """A failure or loss that would have opened the incident, and was settled, not withdrawn."""
        return self.reached and self.grave and sum(self.settled.values()) > 0


class Rule(Value, frozen=True, kw_only=True):
    """One line of the table: in `state`, from the time that `due` gives (None: not now), go `to` and send `notice`.

    `clears`: it takes the acknowledgement away.
    """

    state: str
    reason: str
    to: str
    notice: str | None
    words: str
    due: Callable[[Standing, AlertRules], int | None]
    clears: bool = False


class Decision(Value, frozen=True, kw_only=True):
    """The rule that is due, if any, and otherwise when to look again (None: only when something happens).

    `withheld`: one was due that has nothing to do but send a notice, and a silence is in force.
    """

    rule: Rule | None = None
    look_at: int | None = None
    withheld: bool = False


def _after(start: int | None, seconds: float) -> int | None:
    return None if start is None or seconds == NEVER else start + round(seconds * NS)


def _settled_unseen(it: Standing, rules: AlertRules) -> int | None:
    return it.opened_at if it.open == 0 and not it.worth_telling else None


def _first(it: Standing, rules: AlertRules) -> int | None:
    if it.open == 0:
        return it.opened_at if it.worth_telling else None
    return _after(it.opened_at, rules.group_wait) if it.ripe else None


def _all_settled(it: Standing, rules: AlertRules) -> int | None:
    return _after(it.quiet_since, rules.keep_open_for) if it.open == 0 else None


def _worse(it: Standing, rules: AlertRules) -> int | None:
    rose = it.told_severity is not None and rank(it.severity) > rank(it.told_severity)
    return it.opened_at if it.open and rose else None


def _more(it: Standing, rules: AlertRules) -> int | None:
    news = it.open and it.arrivals > it.told and it.taken is None
    return _after(it.told_at, rules.group_interval) if news else None


def _again(it: Standing, rules: AlertRules) -> int | None:
    return _after(it.told_at, rules.repeat_interval) if it.open and it.taken is None else None


def _outgrown(it: Standing, rules: AlertRules) -> int | None:
    grew = it.taken is not None and it.open >= OUTGROWN_TIMES * max(1, it.taken.count)
    return it.opened_at if grew else None


def _worse_than_taken(it: Standing, rules: AlertRules) -> int | None:
    rose = it.taken is not None and rank(it.severity) > rank(it.taken.severity)
    return it.opened_at if it.open and rose else None


def _taken_too_long(it: Standing, rules: AlertRules) -> int | None:
    return None if it.taken is None else it.taken.until


def _taken_in_hand(it: Standing, rules: AlertRules) -> int | None:
    return it.taken.at if it.open and it.taken is not None and not it.taken.told else None


def _heard_no_more(it: Standing, rules: AlertRules) -> int | None:
    return (it.silenced_until or it.opened_at) if it.open and it.held else None


RULES = (
    Rule(
        state="pending",
        reason="settled_before_notice",
        to="resolved",
        notice=None,
        words="everything was settled or withdrawn before anybody had to be told",
        due=_settled_unseen,
    ),
    Rule(
        state="pending",
        reason="first_notification",
        to="open",
        notice="opened",
        words="enough loose ends with one cause are open, and the time to gather them has passed",
        due=_first,
    ),
    Rule(
        state="open",
        reason="all_settled",
        to="resolved",
        notice="resolved",
        words="the last open loose end was settled",
        due=_all_settled,
    ),
    Rule(
        state="open",
        reason="acknowledgement_outgrown",
        to="open",
        notice=None,
        words="twice as many are open as when it was acknowledged: the acknowledgement no longer stands",
        due=_outgrown,
        clears=True,
    ),
    Rule(
        state="open",
        reason="acknowledgement_worse",
        to="open",
        notice=None,
        words="it became more severe than when it was acknowledged: the acknowledgement no longer stands",
        due=_worse_than_taken,
        clears=True,
    ),
    Rule(
        state="open",
        reason="acknowledgement_expired",
        to="open",
        notice=None,
        words="the time for which it was acknowledged has passed",
        due=_taken_too_long,
        clears=True,
    ),
    Rule(
        state="open",
        reason="silence_ended",
        to="open",
        notice="updated",
        words="no silence fits it any more, and something was to be told",
        due=_heard_no_more,
    ),
    Rule(state="open", reason="severity", to="open", notice="updated", words="it became more severe than was told", due=_worse),
    Rule(
        state="open",
        reason="acknowledged",
        to="open",
        notice="acknowledged",
        words="somebody has it in hand",
        due=_taken_in_hand,
    ),
    Rule(state="open", reason="new_tasks", to="open", notice="updated", words="more loose ends joined it", due=_more),
    Rule(
        state="open",
        reason="repeat_interval",
        to="open",
        notice="repeated",
        words="it is still open and nothing was said about it for a while",
        due=_again,
    ),
)
"""The machine. Within a state the first rule that is due wins."""


def decide(it: Standing, rules: AlertRules, now: int) -> Decision:
    """The step that is due at `now` (ns), or the time of the next look."""
    times: list[int] = []
    withheld = False
    for rule in RULES:
        due = rule.due(it, rules) if rule.state == it.state else None
        if due is None:
            continue
        if due <= now and not is_withheld(it, rule):
            return Decision(rule=rule)
        if due <= now:
            withheld, due = True, it.silenced_until or now
        times.append(due)
    return Decision(look_at=min(times, default=None), withheld=withheld)


def is_withheld(it: Standing, rule: Rule) -> bool:
    """Whether a silence leaves nothing of this step: it would only send a notice, which is no end."""
    return it.silenced_until is not None and rule.notice is not None and rule.to == it.state


def is_hushed(it: Standing, rule: Rule) -> bool:
    """Whether a silence takes the notice away from this step."""
    return it.silenced_until is not None and rule.notice is not None and rule.to != "resolved"


def after(it: Standing, rule: Rule, now: int) -> Standing:
    """The standing once `rule` was applied at `now` (ns)."""
    fields = {name: getattr(it, name) for name in it.__struct_fields__}
    fields["state"] = rule.to
    if rule.clears:
        fields["taken"] = None
    elif is_hushed(it, rule):
        fields["held"] = True
    elif rule.notice is not None:
        told = None if it.taken is None else structs.replace(it.taken, told=True)
        fields |= {"told": it.arrivals, "told_at": now, "told_severity": it.severity, "taken": told, "held": False}
    return Standing(**fields)


def rank(severity: str) -> int:
    """Severities as numbers: a higher one is worse."""
    return SEVERITIES.index(severity)


def severity_of(problem: str, rule: TaskRule | None) -> str:
    """How bad a loose end is: what its [[task]] rule says, else critical for work that did not happen, else warning."""
    if rule is not None and rule.severity is not None:
        return rule.severity
    return "critical" if problem in CRITICAL else "warning"


def worst_problem(groups: list[OpenGroup], before: str) -> str:
    """The worst problem that is open now; with nothing open, the one that stood before."""
    return max((group.problem for group in groups), key=PROBLEMS.index, default=before)


def worst_severity(groups: list[OpenGroup], rules: AlertRules, before: str) -> str:
    """The highest severity ever reached: it never falls, so that who heard of the opening also hears of the end."""
    found = [severity_of(group.problem, rules.rule(group.service, group.name)) for group in groups]
    return max([before, *found], key=rank)


def is_ripe(groups: list[OpenGroup], rules: AlertRules) -> bool:
    """Whether some type has as many open loose ends as its `open_after` asks for."""
    open_of: dict[tuple[str, str], int] = {}
    for group in groups:
        key = (group.service, group.name)
        open_of[key] = open_of.get(key, 0) + group.count
    return any(count >= (rule.open_after if (rule := rules.rule(*key)) else 1) for key, count in open_of.items())


def counts_of(open_now: int, settled: Mapping[str, int]) -> Counts:
    """Counts as shown: all four words of settlement, zeros included."""
    shown = {word: settled.get(word, 0) for word in SETTLEMENTS}
    return Counts(open=open_now, total=open_now + sum(shown.values()), settled=shown)


def resolution_of(settled: Mapping[str, int]) -> str:
    """How an incident ended: the one way in which all were settled, `mixed`, or `withdrawn` when none was left."""
    ways = [word for word in SETTLEMENTS if settled.get(word)]
    return "withdrawn" if not ways else ways[0] if len(ways) == 1 else "mixed"
