"""The settings, declared once: name, kind, default and one sentence each. All else is made from these declarations.

Rules: only what this version honours stands here. Values are frozen; durations are float seconds (`NEVER` = -1.0).
What the contract names and this version lacks stands in `LATER`: its use is an honest error, not a silent nothing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from looseends_daemon.config import kinds

SEVERITIES = ("info", "warning", "critical")
STATE_FOLDER = "$XDG_STATE_HOME/looseends"
LATER = frozenset(
    (
        *("expect", "heartbeat", "metrics", "otel"),
        *("storage.retain_finished", "storage.retain_failed", "storage.max_size", "storage.max_payload"),
        *("detect.heartbeat_every", "detect.settle_failed_after"),
        *("task.overlap", "alerts.ack_expires", "endpoint.match", "endpoint.max_per_minute"),
    )
)
"""Sections and keys of the contract that this version does not have."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all sections: frozen, keyword-only. The docstring's first line is the comment of the example file."""


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
    sample_tasks: Annotated[int, kinds.Count("Tasks listed in one notice; its counts are always exact.", 1, 50)] = 10


class Endpoint(Section, frozen=True, kw_only=True):
    """Who is told about incidents: one signed webhook per endpoint."""

    name: Annotated[str, kinds.Name("Name of the endpoint in pages, headers and logs.", example="ops")]
    kind: Annotated[str, kinds.Choice("Kind of the endpoint.", "webhook", later=("alertmanager", "apprise"))] = "webhook"
    url: Annotated[str, kinds.Url("Where notices are posted to.", secret=True, example="https://ops.example.org/hooks/looseends")]
    secrets: Annotated[
        tuple[str, ...],
        kinds.SigningKeys(
            "Signing keys, newest first; all of them sign. In a file: one on each line.",
            example=("whsec_bm90IGEgc2VjcmV0LCBtYWtlIHlvdXIgb3duIG9uZSE=",),
        ),
    ]
    min_severity: Annotated[str, kinds.Choice("Incidents below this severity are not sent here.", *SEVERITIES)] = "info"
    timeout: Annotated[float, kinds.Duration("Time limit of one delivery attempt.", "1s", "1m")] = 15.0
    include_args: Annotated[bool, kinds.Bool("Whether arguments and exception texts may leave this machine in notices.")] = False


class Network(Section, frozen=True, kw_only=True):
    """What outgoing requests may reach, checked on the address that is really connected to."""

    allow_private: Annotated[bool, kinds.Bool("Whether private and loopback addresses may be reached.")] = True
    deny_networks: Annotated[
        tuple[str, ...], kinds.Networks("Never reached, whatever a name resolves to (cloud metadata lives here).")
    ] = ("169.254.0.0/16", "fe80::/10")


class Log(Section, frozen=True, kw_only=True):
    """What the daemon says about itself, on standard error."""

    level: Annotated[str, kinds.Choice("Least important level that is written.", "debug", "info", "warning", "error")] = "info"
    format: Annotated[str, kinds.Choice('"auto" is text on a terminal and JSON elsewhere.', "auto", "text", "json")] = "auto"


class Settings(Section, frozen=True, kw_only=True):
    """Everything the daemon can be told. Field names are the names of the sections, `tasks` and `endpoints` apart."""

    server: Server = Server()
    storage: Storage = Storage()
    detect: Detect = Detect()
    tasks: tuple[TaskRule, ...] = msgspec.field(default=(), name="task")
    alerts: Alerts = Alerts()
    endpoints: tuple[Endpoint, ...] = msgspec.field(default=(), name="endpoint")
    network: Network = Network()
    log: Log = Log()
