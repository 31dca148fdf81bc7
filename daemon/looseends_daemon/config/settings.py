"""The settings, declared once: name, kind, default and one sentence each. All else is made from these declarations.

Rules: only what this version honours stands here. Values are frozen; durations are float seconds (`NEVER` = -1.0).
What the contract names and this version lacks stands in `LATER`: its use is an honest error, not a silent nothing.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from looseends_daemon.config import kinds
from looseends_daemon.config.extras import apprise_fault

SEVERITIES = ("info", "warning", "critical")
ENDPOINT_KINDS = ("webhook", "alertmanager", "apprise")
STATE_FOLDER = "$XDG_STATE_HOME/looseends"
LATER = frozenset(("detect.heartbeat_every",))
"""Sections and keys of the contract that this version does not have."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all sections: frozen, keyword-only. The docstring's first line is the comment of the example file.

    `same`: keys by which two tables of one array are one too many. `apart`: keys that exclude others, so the example shows them
    in a table of their own.
    """

    same: ClassVar[tuple[str, ...]] = ("name",)
    apart: ClassVar[tuple[str, ...]] = ()

    def faults(self) -> list[tuple[str, str]]:
        """What is wrong between keys that are right by themselves: (key, words)."""
        return []


class Server(Section, frozen=True, kw_only=True):
    """Where the daemon listens and what it calls itself."""

    listen: Annotated[
        tuple[str, ...], kinds.Addresses('Addresses: "host:port", "[::1]:port" or "unix:/path" (made with mode 0600).')
    ] = ("127.0.0.1:3637", f"unix:{STATE_FOLDER}/looseends.sock")
    external_url: Annotated[
        str | None,
        kinds.Url(
            "Base of the links in notices; without it a notice carries the host and a command line.",
            example="https://looseends.example.org",
        ),
    ] = None
    instance: Annotated[
        str, kinds.Name("Name of this daemon in every notice; by default the name of the host.", example="prod-eu-1")
    ] = ""
    allowed_hosts: Annotated[
        tuple[str, ...], kinds.Hosts("More names under which this daemon may be asked for (Host header).")
    ] = ()
    loopback_ingest: Annotated[
        str,
        kinds.Choice('Whether plain loopback may send events without a token; "token" asks for one.', "open", "token"),
    ] = "open"
    shutdown_timeout: Annotated[
        float, kinds.Duration("How long a stop waits for requests and deliveries that are under way.", "0s", "5m")
    ] = 10.0


class Storage(Section, frozen=True, kw_only=True):
    """Where everything is kept: one SQLite file."""

    path: Annotated[str, kinds.Path("The database; its folder is made with mode 0700 if it is missing.")] = (
        f"{STATE_FOLDER}/looseends.db"
    )
    retain_finished: Annotated[
        float,
        kinds.Duration("Tasks that ended well or were cancelled are removed this long after their end.", "1m", "3660d"),
    ] = 7 * 86_400.0
    retain_failed: Annotated[
        float,
        kinds.Duration(
            "Likewise tasks that failed or ever were a loose end; open tasks and open loose ends are never removed.",
            "1m",
            "3660d",
        ),
    ] = 90 * 86_400.0
    max_size: Annotated[
        int,
        kinds.Size(
            "Above this the oldest finished payloads are given up, then finished rows; then no new events are taken.",
            "16MiB",
            "16TiB",
        ),
    ] = 10 << 30
    max_payload: Annotated[
        int,
        kinds.Size("Larger arguments, results and errors are not kept, and such a task cannot be replayed.", "256B", "64KiB"),
    ] = 64 << 10


class Detect(Section, frozen=True, kw_only=True):
    """When a task counts as stuck, lost or never started."""

    default_deadline: Annotated[
        float,
        kinds.Duration('Deadline of declared tasks that name none; "never" is allowed.', "100ms", "366d", never=True),
    ] = 300.0
    start_within: Annotated[
        float,
        kinds.Duration("How long scheduled work that does not wait in a queue may take to start.", "100ms", "366d", never=True),
    ] = 60.0
    unreachable_after: Annotated[
        float,
        kinds.Duration("An instance that is silent for this long, with no better sign, is unreachable.", "2s", "1d"),
    ] = 30.0
    grace: Annotated[
        float, kinds.Duration("The daemon gives no verdict before it has been up and unfrozen this long.", "0s", "10m")
    ] = 5.0
    settle_failed_after: Annotated[
        float,
        kinds.Duration(
            "A failure that nobody did anything about for this long dismisses itself, with that reason.",
            "1m",
            "3660d",
            never=True,
        ),
    ] = 7 * 86_400.0
    spools: Annotated[
        tuple[str, ...],
        kinds.Paths(
            f"Spool folders to watch; by default the one of this user ($LOOSEENDS_SPOOL_DIR, else {STATE_FOLDER}/spool).",
            example=("/var/lib/shop/looseends/spool",),
        ),
    ] = ()


class TaskRule(Section, frozen=True, kw_only=True):
    """Settings for some tasks: the first rule that matches a task is the one that counts."""

    match: Annotated[
        str,
        kinds.Glob('Pattern on "service/name": * stands for any text, ? for one character.', example="shop-web/mail.*"),
    ]
    deadline: Annotated[
        float | None,
        kinds.Duration("Deadline of these tasks where they name none.", "100ms", "366d", never=True, example=30.0),
    ] = None
    start_within: Annotated[
        float | None,
        kinds.Duration("Likewise the time they may take to start.", "100ms", "366d", never=True, example=60.0),
    ] = None
    severity: Annotated[
        str | None,
        kinds.Choice("By default critical for lost, never_started and missed, else warning.", *SEVERITIES, example="critical"),
    ] = None
    open_after: Annotated[int, kinds.Count("This many loose ends must be open before an incident opens.", 1, 1_000_000)] = 1
    failures: Annotated[
        str,
        kinds.Choice('"ledger" only counts final failures of these tasks: no loose end, no page.', "incident", "ledger"),
    ] = "incident"
    overlap: Annotated[
        str,
        kinds.Choice('"warn" flags two live tasks with the same key, or without one the same arguments.', "allow", "warn"),
    ] = "allow"


class Expect(Section, frozen=True, kw_only=True):
    """What must begin: at the minutes of a cron line, or after each start of another task."""

    same: ClassVar[tuple[str, ...]] = ("environment", "service", "name", "cron", "tz", "after", "by")
    apart: ClassVar[tuple[str, ...]] = ("after", "by")

    name: Annotated[str, kinds.Label("Name of the task that must begin.", example="nightly.backup")]
    service: Annotated[
        str | None,
        kinds.Label("Who expects it and is told when it is missed; with after, only its tasks count.", example="cron"),
    ] = None
    environment: Annotated[str, kinds.Label("Environment in which it must begin.")] = "production"
    within: Annotated[float, kinds.Duration("How late it may begin.", "1s", "366d", example=1800.0)]
    cron: Annotated[str | None, kinds.Cron("When it is due: minute, hour, day, month, weekday.", example="0 2 * * *")] = None
    tz: Annotated[str, kinds.Zone("Time zone of the cron line.")] = "UTC"
    after: Annotated[
        str | None, kinds.Label("Instead of cron: it must begin after each start of this task.", example="order.create")
    ] = None
    by: Annotated[
        str | None,
        kinds.Choice("What both have in common; by parent, the one began the other.", "key", "parent", "trace", example="key"),
    ] = None

    def faults(self) -> list[tuple[str, str]]:
        """A rule is by cron or after another task, and says all that this needs."""
        if self.cron is not None and self.after is not None:
            return [("after", "is set beside cron; keep one, or write two [[expect]]")]
        if self.cron is None and self.after is None:
            return [("name", 'needs cron = "0 2 * * *" or after = "order.create"')]
        if self.cron is not None and self.by is not None:
            return [("by", "belongs to after, not to cron; remove it")]
        if self.cron is not None and self.service is None:
            return [("cron", "needs a service: the one that is told when nothing began")]
        if self.after is not None and self.by is None:
            return [("after", 'needs by = "key", "parent" or "trace"')]
        return []


class Alerts(Section, frozen=True, kw_only=True):
    """When an incident opens, is repeated and resolves."""

    group_wait: Annotated[
        float, kinds.Duration("How long a new incident gathers loose ends before it is reported.", "0s", "1h")
    ] = 1.0
    group_interval: Annotated[
        float,
        kinds.Duration("At least this long between two notices about more loose ends of one incident.", "1s", "1d"),
    ] = 60.0
    repeat_interval: Annotated[
        float,
        kinds.Duration("An open incident with nothing new is reported again after this long.", "1m", "30d", never=True),
    ] = 14_400.0
    keep_open_for: Annotated[
        float, kinds.Duration("How long everything must stay settled before an incident resolves.", "0s", "1d")
    ] = 0.0
    ack_expires: Annotated[
        float, kinds.Duration("How long an acknowledgement stands that names no time of its own.", "1m", "30d")
    ] = 86_400.0
    sample_tasks: Annotated[int, kinds.Count("Tasks listed in one notice; its counts are always exact.", 1, 50)] = 10


class Endpoint(Section, frozen=True, kw_only=True):
    """Who is told about incidents: a signed webhook, an Alertmanager, or one of the many that Apprise knows."""

    name: Annotated[str, kinds.Name("Name of the endpoint in pages, headers and logs.", example="ops")]
    kind: Annotated[str, kinds.Choice("Kind of the endpoint.", *ENDPOINT_KINDS)] = "webhook"
    url: Annotated[
        str,
        kinds.EndpointUrl(
            "Where notices go: of a webhook or an Alertmanager its address, else that of Apprise, like mailto://user:pw@host.",
            secret=True,
            example="https://ops.example.org/hooks/looseends",
        ),
    ]
    secrets: Annotated[
        tuple[str, ...],
        kinds.SigningKeys(
            "Signing keys of a webhook, newest first; all of them sign. In a file: one on each line.",
            example=("whsec_bm90IGEgc2VjcmV0LCBtYWtlIHlvdXIgb3duIG9uZSE=",),
        ),
    ] = ()
    min_severity: Annotated[str, kinds.Choice("Incidents below this severity are not sent here.", *SEVERITIES)] = "info"
    match: Annotated[
        tuple[str, ...],
        kinds.Matchers(
            "Only incidents that fit all of these, as in Alertmanager (=, !=, =~, !~), are sent here.",
            example=('service=~"shop-.*"', 'environment="production"'),
        ),
    ] = ()
    timeout: Annotated[float, kinds.Duration("Time limit of one delivery attempt.", "1s", "1m")] = 15.0
    max_per_minute: Annotated[
        int, kinds.Count("More delivery attempts in a minute wait; newer news of an incident take the place of older.", 1, 10_000)
    ] = 60
    include_args: Annotated[bool, kinds.Bool("Whether arguments and exception texts may leave this machine in notices.")] = False

    def faults(self) -> list[tuple[str, str]]:
        """Each kind has an address of its own form, and only a webhook is signed."""
        web = self.url.lower().startswith(("http://", "https://"))
        if self.kind == "apprise":
            words = apprise_fault(self.url) if self.url else None
            found = [("url", words)] if words else []
        else:
            needed = "must be an address that begins with http:// or https://"
            found = [("url", f'{needed}; for one of Apprise set kind = "apprise"')] if self.url and not web else []
        if self.kind == "webhook" and not self.secrets:
            found.append(("secrets", "(or secrets_file) is missing: a webhook is signed; " + kinds.SigningKeys.hint))
        if self.kind != "webhook" and self.secrets:
            found.append(("secrets", f'belong to kind = "webhook"; {self.kind} does not sign, remove them'))
        return found


class Heartbeat(Section, frozen=True, kw_only=True):
    """A dead-man's switch outside this machine: it is pinged while all of the daemon works, and its silence is the alarm."""

    url: Annotated[
        str | None, kinds.Url("Asked with GET while all is well.", secret=True, example="https://hc-ping.com/your-uuid")
    ] = None
    every: Annotated[float, kinds.Duration("How often.", "5s", "1d")] = 60.0


class Network(Section, frozen=True, kw_only=True):
    """What outgoing requests may reach, checked on the address that is really connected to."""

    allow_private: Annotated[bool, kinds.Bool("Whether private and loopback addresses may be reached.")] = True
    deny_networks: Annotated[
        tuple[str, ...], kinds.Networks("Never reached, whatever a name resolves to (cloud metadata lives here).")
    ] = ("169.254.0.0/16", "fe80::/10")


class Metrics(Section, frozen=True, kw_only=True):
    """What GET /metrics tells Prometheus."""

    prometheus: Annotated[bool, kinds.Bool("Whether there is a GET /metrics.")] = True
    max_names: Annotated[
        int, kinds.Count("Types of task with series of their own; those first seen after them are counted together.", 1, 100_000)
    ] = 500


class Otel(Section, frozen=True, kw_only=True):
    """Ended tasks, verdicts and metrics for an OpenTelemetry collector; the SDK's OTEL_EXPORTER_OTLP_* variables hold too."""

    endpoint: Annotated[
        str | None,
        kinds.Url(
            "Base address of a collector; without it and without OTEL_EXPORTER_OTLP_ENDPOINT nothing is sent.",
            example="http://127.0.0.1:4318",
        ),
    ] = None
    traces: Annotated[bool, kinds.Bool("Whether each ended task is sent as a span.")] = True
    metrics: Annotated[bool, kinds.Bool("Whether the metrics are sent as well.")] = True
    logs: Annotated[bool, kinds.Bool("Whether exceptions and verdicts are sent as log records.")] = True
    trace_url: Annotated[
        str | None,
        kinds.Url(
            "Where a task page's trace id leads to; {trace_id} is filled in.",
            example="https://jaeger.example.org/trace/{trace_id}",
        ),
    ] = None

    def faults(self) -> list[tuple[str, str]]:
        """A template has the place it is made for."""
        if self.trace_url is not None and "{trace_id}" not in self.trace_url:
            return [("trace_url", "must hold {trace_id}, like https://jaeger.example.org/trace/{trace_id}")]
        return []


class Log(Section, frozen=True, kw_only=True):
    """What the daemon says about itself, on standard error."""

    level: Annotated[str, kinds.Choice("Least important level that is written.", "debug", "info", "warning", "error")] = "info"
    format: Annotated[str, kinds.Choice('"auto" is text on a terminal and JSON elsewhere.', "auto", "text", "json")] = "auto"


class Settings(Section, frozen=True, kw_only=True):
    """Everything the daemon can be told. Fields are named like the sections; lists are `tasks`, `expects`, `endpoints`."""

    server: Server = Server()
    storage: Storage = Storage()
    detect: Detect = Detect()
    tasks: tuple[TaskRule, ...] = msgspec.field(default=(), name="task")
    expects: tuple[Expect, ...] = msgspec.field(default=(), name="expect")
    alerts: Alerts = Alerts()
    endpoints: tuple[Endpoint, ...] = msgspec.field(default=(), name="endpoint")
    network: Network = Network()
    heartbeat: Heartbeat = Heartbeat()
    metrics: Metrics = Metrics()
    otel: Otel = Otel()
    log: Log = Log()
