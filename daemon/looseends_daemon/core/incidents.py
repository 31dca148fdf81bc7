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

`RULES` is this table as data. Each rule says from which moment on it holds, so one function gives both the step that is
due and the time at which to look again; there is no polling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from looseends.wire import NEVER, NS
from looseends_daemon.core.policy import TaskRule
from looseends_daemon.core.resources import PROBLEMS, SETTLEMENTS, Counts, Value

SEVERITIES = ("info", "warning", "critical")
CRITICAL = ("lost", "never_started", "missed")
GRAVE = ("failed", "lost")
"""Problems that are reported even when they were mended before the incident opened."""
DETAIL_CHARS_MAX = 160


class EndpointRule(Value, frozen=True, kw_only=True):
    """What the machine must know of an endpoint: who it is, what it wants to hear, what may be told. `timeout` in s."""

    name: str
    fingerprint: str
    min_severity: str = "info"
    include_args: bool = False
    timeout: float = 15.0


class AlertRules(Value, frozen=True, kw_only=True):
    """What the operator decided about incidents. Durations in seconds; `instance` is the name of this daemon.

    `command` is what somebody on its host types to ask it, up to the path of the API.
    """

    group_wait: float = 1.0
    group_interval: float = 60.0
    repeat_interval: float = 14_400.0
    keep_open_for: float = 0.0
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


class Standing(Value, frozen=True, kw_only=True):
    """Where an incident stands: what the rules look at. Times in ns; `settled` counts by word."""

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

    @property
    def worth_telling(self) -> bool:
        """A failure or loss that would have opened the incident, and was settled, not withdrawn."""
        return self.reached and self.grave and sum(self.settled.values()) > 0


class Rule(Value, frozen=True, kw_only=True):
    """One line of the table: in `state`, from the time that `due` gives (None: not now), go `to` and send `notice`."""

    state: str
    reason: str
    to: str
    notice: str | None
    words: str
    due: Callable[[Standing, AlertRules], int | None]


class Decision(Value, frozen=True, kw_only=True):
    """The rule that is due, if any, and otherwise when to look again (None: only when something happens)."""

    rule: Rule | None = None
    look_at: int | None = None


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
    return _after(it.told_at, rules.group_interval) if it.open and it.arrivals > it.told else None


def _again(it: Standing, rules: AlertRules) -> int | None:
    return _after(it.told_at, rules.repeat_interval) if it.open else None


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
    Rule(state="open", reason="severity", to="open", notice="updated", words="it became more severe than was told", due=_worse),
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
    times = [(rule, rule.due(it, rules)) for rule in RULES if rule.state == it.state]
    for rule, due in times:
        if due is not None and due <= now:
            return Decision(rule=rule)
    return Decision(look_at=min((due for _, due in times if due is not None), default=None))


def after(it: Standing, rule: Rule, now: int) -> Standing:
    """The standing once `rule` was applied at `now` (ns)."""
    told = rule.notice is not None
    return Standing(
        state=rule.to,
        opened_at=it.opened_at,
        severity=it.severity,
        open=it.open,
        settled=it.settled,
        arrivals=it.arrivals,
        ripe=it.ripe,
        reached=it.reached,
        grave=it.grave,
        quiet_since=it.quiet_since,
        told=it.arrivals if told else it.told,
        told_at=now if told else it.told_at,
        told_severity=it.severity if told else it.told_severity,
    )


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
