"""`looseends ls`, `show`, `tail` and `incidents`: what the dashboard shows, in a terminal.

Rules: they ask the running daemon, never the file; a query is written as on the pages, and a mistake in it comes back with its
column. `--json` prints what the API answered.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

from looseends.wire import format_time
from looseends_daemon.commands.asking import ask
from looseends_daemon.commands.storage import moment
from looseends_daemon.commands.tables import fitted, print_json, printable, short_time, span, table

DONE = 0
ITEMS_MAX = 500
LOOK_S = 1.0
FOLLOWED_MAX = 500
"""Tasks that `tail -f` looks at each time: the newest that fit the query."""
SettingsOf = Callable[[argparse.Namespace], Any]
TASK_HEADS = ("STATE", "BEGAN", "TOOK", "NAME", "SERVICE", "KEY", "ID", "WHY")


def add(commands: Any, raw: Any, settings_of: SettingsOf) -> None:
    """Add the four commands. `settings_of` reads -c and --db."""
    for make in (_ls_parser, _show_parser, _tail_parser, _incidents_parser):
        parser, run = make(commands, raw)
        where_to_ask(parser)
        parser.set_defaults(run=lambda args, run=run: run(settings_of(args), args))


def where_to_ask(parser: Any) -> None:
    """The options by which every command that asks a daemon finds it."""
    parser.add_argument("--json", action="store_true", help="what the API answers, as JSON")
    parser.add_argument("-c", dest="config", metavar="CONFIG", help="configuration file that names the daemon's addresses")
    parser.add_argument("--db", metavar="PATH", help="database file, beside which the operator token lies")


def _ls_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "ls",
        help="list tasks, newest first",
        formatter_class=raw,
        description="List tasks, newest first. Without a query: the loose ends.",
        epilog="examples:\n  looseends ls\n  looseends ls name:mail.* state:failed --since 2h\n"
        "  looseends ls -- -state:succeeded service:shop-web",
    )
    parser.add_argument("query", nargs="*", help="which tasks, as on the pages: is:loose name:mail.* older:5m")
    parser.add_argument("--since", metavar="WHEN", help='only tasks begun since a time, or that long ago: "2h", "1d"')
    parser.add_argument("--before", metavar="WHEN", help="only tasks begun before then")
    parser.add_argument("-n", "--limit", type=int, default=50, metavar="N", help=f"at most so many, up to {ITEMS_MAX} (50)")
    return parser, run_ls


def _show_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "show",
        help="show one task or incident with its history",
        formatter_class=raw,
        description="Show one task with its history, or one incident with what was told about it.",
        epilog="examples:\n  looseends show 0197a3c2-58d1-8c3e-9a41-6a1b5cf0d2e7\n  looseends show inc_019ab3",
    )
    parser.add_argument("id", help="the id of a task, the text its sender calls it by, or the id of an incident")
    return parser, run_show


def _tail_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "tail",
        help="print the newest tasks; with -f each as it changes",
        formatter_class=raw,
        description="Print the newest tasks, newest last. With -f go on: each task is printed again when its state changes.",
        epilog="examples:\n  looseends tail -f\n  looseends tail -f is:loose",
    )
    parser.add_argument("query", nargs="*", help="which tasks, as on the pages")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("-n", "--limit", type=int, default=10, metavar="N", help="so many to begin with (10)")
    return parser, run_tail


def _incidents_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "incidents",
        help="list incidents, newest first",
        formatter_class=raw,
        description="List incidents, newest first. Without --state: those that are pending or open.",
        epilog="example:\n  looseends incidents --state resolved -n 5",
    )
    parser.add_argument("--state", choices=("pending", "open", "resolved", "all"), help="only these")
    parser.add_argument("-n", "--limit", type=int, default=50, metavar="N", help=f"at most so many, up to {ITEMS_MAX} (50)")
    return parser, run_incidents


# --- tasks --------------------------------------------------------------------------------------------------------


def run_ls(settings: Any, args: argparse.Namespace) -> int:
    """Print the tasks of a query. Raises NoAnswer, UsageError."""
    now = time.time_ns()
    asked: dict[str, Any] = {"q": " ".join(args.query) or "is:loose", "limit": args.limit}
    for name, text in (("from", args.since), ("to", args.before)):
        if text:
            asked[name] = format_time(moment(text, now))
    page = ask(settings, "GET", f"/api/v1/tasks?{urlencode(asked)}")
    while page["next_cursor"] and len(page["items"]) < args.limit:  # it stopped before it found enough; "nothing" must be sure
        rest = {**asked, "limit": args.limit - len(page["items"]), "cursor": page["next_cursor"]}
        more = ask(settings, "GET", f"/api/v1/tasks?{urlencode(rest)}")
        page = {**more, "items": page["items"] + more["items"]}
    if args.json:
        print_json(page)
        return DONE
    print(table((*TASK_HEADS[:1], "BEGAN (UTC)", *TASK_HEADS[2:]), [task_row(task, now) for task in page["items"]]))
    _say_rest(page, args.query)
    return DONE


def _say_rest(page: dict[str, Any], query: list[str]) -> None:
    if not page["items"]:
        print("nothing fits" if query else "no loose ends: every task is accounted for", file=sys.stderr)
    if page["next_cursor"]:
        print(f"there are more; -n shows up to {ITEMS_MAX}, a query narrows them down", file=sys.stderr)
    if page.get("searched"):
        print(page["searched"], file=sys.stderr)


def task_row(task: dict[str, Any], now: int) -> list[object]:
    """One line of the list."""
    state = task["verdict"] or task["state"]
    if task["settled"]:
        state = f"{state}, {task['settled']}"
    why = task["reason"] or (task["error"] or {}).get("type") or ""
    return [
        *(state.replace("_", " "), short_time(task["began_at"], now), span(task["duration"])),
        *(task["name"], task["service"], task["key"], task["id"], why),
    ]


def run_tail(settings: Any, args: argparse.Namespace) -> int:
    """Print the newest, and with -f what changes. Raises NoAnswer."""
    query = " ".join(args.query)
    seen: dict[str, tuple[object, ...]] = {}
    widths: list[int] = []
    limit = args.limit
    while True:
        page = ask(settings, "GET", f"/api/v1/tasks?{urlencode({'q': query, 'limit': limit})}")
        _print_news(list(_news(page["items"], seen)), widths, args.json)
        if not args.follow:
            return DONE
        limit = FOLLOWED_MAX
        try:
            sys.stdout.flush()
            time.sleep(LOOK_S)
        except KeyboardInterrupt:
            return DONE


def _news(tasks: list[dict[str, Any]], seen: dict[str, tuple[object, ...]]) -> Iterator[dict[str, Any]]:
    """Tasks that are not as they were when last seen, oldest first. The first look is taken as it is."""
    for task in reversed(tasks):
        now = (task["state"], task["verdict"], task["settled"], task["attempt"])
        if seen.get(task["id"]) != now:
            yield task
        seen[task["id"]] = now
    for old in list(seen)[: max(0, len(seen) - 4 * FOLLOWED_MAX)]:
        del seen[old]


def _print_news(tasks: list[dict[str, Any]], widths: list[int], as_json: bool) -> None:
    """Lines under columns that only grow, so that what was printed before stays aligned with most of what comes."""
    now = time.time_ns()
    for task in tasks:
        if as_json:
            print_json(task)
            continue
        row = [printable("-" if value is None else value) for value in task_row(task, now)]
        widths[:] = [max(len(cell), width) for cell, width in zip(row, widths or [0] * len(row), strict=True)]
        print(fitted(row, widths))


# --- one thing ----------------------------------------------------------------------------------------------------


def run_show(settings: Any, args: argparse.Namespace) -> int:
    """Print a task or an incident. Raises NoAnswer."""
    name = quote(args.id, safe="")
    if args.id.startswith("inc_"):
        incident = ask(settings, "GET", f"/api/v1/incidents/{name}")
        notices = ask(settings, "GET", f"/api/v1/notices?incident={name}")["items"]
        if args.json:
            print_json({**incident, "notices": notices})
        else:
            print("\n".join(incident_lines(incident, notices)))
        return DONE
    task = ask(settings, "GET", f"/api/v1/tasks/{name}")
    history = ask(settings, "GET", f"/api/v1/tasks/{name}/history")["items"]
    if args.json:
        print_json({**task, "history": history})
    else:
        print("\n".join(task_lines(task, history)))
    return DONE


def task_lines(task: dict[str, Any], history: list[dict[str, Any]]) -> list[str]:
    """A task as a person reads it: what became of it, what it was given, its history."""
    import json

    head = f"{task['name']} of {task['service']} ({task['environment']}): {(task['verdict'] or task['state']).replace('_', ' ')}"
    fields = {
        "why": task["reason"],
        "settled": task["settled"],
        "id": task["id"],
        "key": task["key"],
        "attempt": task["attempt"] if task["attempt"] > 1 else None,
        "began": task["began_at"],
        "due": task["due_at"] if not task["ended_at"] else None,
        "ended": task["ended_at"],
        "took": span(task["duration"]) if task["duration"] is not None else None,
        "process": _process(task["instance"]),
        "arguments": json.dumps(task["args"], ensure_ascii=False) if task["args"] is not None else None,
        "error": f"{task['error']['type']}: {task['error']['message']}" if task["error"] else None,
        "replay of": task["replay_of"],
        "replayed as": ", ".join(task["replays"]) or None,
        "incident": task.get("incident"),
        "replay": "possible: looseends replay --task " + task["id"] if task["replayable"] else task["not_replayable_because"],
        "page": task["url"],
    }
    lines = [printable(head), *(f"  {name + ':':<12} {printable(value)}" for name, value in fields.items() if value)]
    lines += ["", "history"]
    for entry in history:
        words = " ".join(str(part) for part in (entry["what"], entry["verdict"], entry["reason"]) if part)
        by = f" (by {entry['by']})" if entry["by"] else ""
        lines.append(f"  {entry['at']}  {printable(words)}{printable(by)}")
    return lines


def _process(instance: dict[str, Any] | None) -> str | None:
    if instance is None:
        return None
    alive = "alive" if instance["alive"] else "gone"
    release = f", release {instance['release']}" if instance["release"] else ""
    return f"{instance['host']} pid {instance['pid']}{release}, {alive}"


# --- incidents ----------------------------------------------------------------------------------------------------


def run_incidents(settings: Any, args: argparse.Namespace) -> int:
    """Print incidents. Raises NoAnswer."""
    now = time.time_ns()
    states = {None: ("pending", "open"), "all": (None,)}.get(args.state, (args.state,))
    found = []
    for state in states:
        asked = {"limit": args.limit, **({"state": state} if state else {})}
        found += ask(settings, "GET", f"/api/v1/incidents?{urlencode(asked)}")["items"]
    if args.json:
        print_json({"items": found, "next_cursor": None})
        return DONE
    rows = [
        (one["state"], one["severity"], one["counts"]["open"], short_time(one["opened_at"], now), one["id"], _marks(one))
        for one in found[: args.limit]
    ]
    print(table(("STATE", "SEVERITY", "OPEN", "SINCE (UTC)", "ID", "WHAT"), rows))
    if not rows:
        print("no incident" if args.state else "nothing is open: every loose end is settled", file=sys.stderr)
    return DONE


def _marks(incident: dict[str, Any]) -> str:
    marks = [word for word in ("acknowledged", "silenced") if incident[word]]
    return f"{incident['title']} ({', '.join(marks)})" if marks else str(incident["title"])


def incident_lines(incident: dict[str, Any], notices: list[dict[str, Any]]) -> list[str]:
    """An incident as a person reads it: what it is, why it moved, who was told."""
    counts = incident["counts"]
    settled = ", ".join(f"{n} {word.replace('_', ' ')}" for word, n in counts["settled"].items() if n) or "none"
    lines = [
        printable(incident["title"]),
        f"  {incident['state']}, {incident['severity']}; {counts['open']} open of {counts['total']}, settled: {settled}",
        f"  {incident['id']}  {incident['url'] or ''}".rstrip(),
    ]
    for word in ("acknowledged", "silenced"):
        if incident[word]:
            lines.append(f"  {word}: {printable(', '.join(f'{k} {v}' for k, v in incident[word].items() if v))}")
    lines += ["", "why"]
    lines += [f"  {one['at']}  {one['state']:<9} {printable(one['words'])}" for one in incident["why"]]
    lines += ["", "told"]
    for notice in reversed(notices):
        kind = notice["type"].rpartition(".")[2]
        lines.append(f"  {notice['created_at']}  {kind:<12} {printable(notice['endpoint'])}: {notice['state']}")
    return lines if notices else [*lines, "  nobody: no endpoint is configured, or none wanted to hear of it"]
