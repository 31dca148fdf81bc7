"""`looseends replay`: shows the plan, and runs it only when told to.

Rules: nothing runs whose plan was not printed first; the run names the digest of the plan that was; standard output holds the
plan and the report, questions and progress go to standard error. Exit codes: 0 all of it was done, 1 not all, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from looseends.errors import UsageError
from looseends_daemon.commands.asking import NoAnswer, ask
from looseends_daemon.commands.storage import moment

DONE, NOT_ALL = 0, 1
LOOK_S = 1.0
AWAY_S_MAX = 60.0
"""How long a daemon may be away while its run is followed: it is started anew and goes on."""
ITEMS_SHOWN = 20
SettingsOf = Callable[[argparse.Namespace], Any]
NUMBERS = (("canary", int), ("per_second", float), ("in_flight", int), ("stop_after_failures", int))


def add(commands: Any, raw: Any, settings_of: SettingsOf) -> None:
    """Add the command. `settings_of` reads -c and --db."""
    parser = commands.add_parser(
        "replay",
        help="plan to run recorded tasks again, and run them",
        formatter_class=raw,
        description="Show the plan: which tasks are ready, which need your word, which cannot run, and why.\n"
        "With --yes it is then run; without, nothing is.",
        epilog="examples:\n  looseends replay is:loose name:mail.* --since 2h\n"
        "  looseends replay --incident inc_01 --canary 5 --per-second 50 --yes\n"
        "  looseends replay --task 0197a3c2-58d1-8c3e-9a41-6a1b5cf0d2e7 --args '{\"order_id\": 8}' --yes",
    )
    parser.add_argument("query", nargs="*", help="which tasks, as on the pages: is:loose name:mail.*")
    parser.add_argument("--since", metavar="WHEN", help='only tasks begun since a time, or that long ago: "2h", "1d"')
    parser.add_argument("--before", metavar="WHEN", help="only tasks begun before then")
    parser.add_argument("--task", action="append", default=[], metavar="ID", help="this task; may be repeated")
    parser.add_argument("--incident", metavar="ID", help="every open loose end of an incident")
    parser.add_argument("--args", metavar="JSON", help="other arguments, by name, for the one --task")
    parser.add_argument("--confirm", action="append", default=[], metavar="REASON", help="run what has this reason too")
    for name, kind in NUMBERS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=HELP[name])
    parser.add_argument("--note", default="", help="why, for whoever looks later")
    parser.add_argument("--yes", action="store_true", help="run it; without it nothing is run")
    parser.add_argument("--json", action="store_true", help="plan and replay as JSON")
    parser.add_argument("-c", dest="config", metavar="CONFIG", help="configuration file that names the daemon's addresses")
    parser.add_argument("--db", metavar="PATH", help="database file, beside which the operator token lies")
    parser.set_defaults(run=lambda args: run(settings_of(args), args))


HELP = {
    "canary": "so many first, alone; the rest only if they do their work (0: none)",
    "per_second": "at most so many a second",
    "in_flight": "at most so many at once",
    "stop_after_failures": "stop after so many that did not do their work (0: never)",
}


def run(settings: Any, args: argparse.Namespace) -> int:
    """Plan, print, and with --yes run and follow. Raises UsageError, NoAnswer."""
    plan = ask(settings, "POST", "/api/v1/replay-plans", selection(args, time.time_ns()))
    if not args.json:
        items = ask(settings, "GET", f"/api/v1/replay-plans/{quote(plan['id'], safe='')}/items?limit={ITEMS_SHOWN}")["items"]
        print("\n".join(plan_lines(plan, items)))
    if not args.yes:
        if args.json:
            print(json.dumps({"plan": plan, "replay": None}, indent=1))
        else:
            print("\nnothing was run; add --yes to run what is ready, --confirm REASON for what needs your word", file=sys.stderr)
        return DONE
    wish = {"plan": plan["id"], "digest": plan["digest"], "confirm": args.confirm, "note": args.note}
    numbers = {name: getattr(args, name) for name, _ in NUMBERS if getattr(args, name) is not None}
    replay = ask(settings, "POST", "/api/v1/replays", {**wish, **numbers})
    try:
        replay = follow(settings, replay)
    except KeyboardInterrupt:
        print(f"\n{replay['id']} goes on without you: pause or cancel it at {replay['url']}", file=sys.stderr)
        return NOT_ALL
    if args.json:
        print(json.dumps({"plan": plan, "replay": replay}, indent=1))
    else:
        print(f"{replay['id']} is {replay['state']}: {counted(replay['counts'])}")
    return DONE if replay["counts"]["succeeded"] == replay["counts"]["total"] else NOT_ALL


def selection(args: argparse.Namespace, now: int) -> dict[str, Any]:
    """The body that asks for the plan. Raises UsageError."""
    asked: dict[str, Any] = {}
    if args.query or args.since or args.before:
        asked["q"] = " ".join(args.query)
    for name, text in (("from", args.since), ("to", args.before)):
        if text:
            asked[name] = moment(text, now)
    if args.task:
        asked["tasks"] = args.task
    if args.incident:
        asked["incident"] = args.incident
    if not asked:
        raise UsageError("looseends replay: name a query, --task or --incident", hint="looseends replay is:loose")
    if args.args is not None:
        try:
            asked["edit"] = json.loads(args.args)
        except ValueError as error:
            raise UsageError(f"looseends replay: --args is no JSON: {error}") from None
    return asked


def follow(settings: Any, replay: dict[str, Any]) -> dict[str, Any]:
    """Look until it is over, or until a person must look: paused, cancelled or done. Raises NoAnswer."""
    while replay["state"] == "running":
        left = (replay["run"] or {}).get("remaining")
        about = f", about {left:.0f} s left" if left else ""
        print(f"{replay['id']}: {counted(replay['counts'])}{about}", file=sys.stderr)
        time.sleep(LOOK_S)
        replay = _look(settings, f"/api/v1/replays/{quote(replay['id'], safe='')}")
    why = (replay["run"] or {}).get("why")
    if replay["state"] == "paused" and why:
        print(f"{replay['id']} is paused: {why}", file=sys.stderr)
    return replay


def _look(settings: Any, path: str) -> Any:
    """Ask, also of a daemon that is away for a moment. Raises NoAnswer."""
    until = time.monotonic() + AWAY_S_MAX
    while True:
        try:
            return ask(settings, "GET", path)
        except NoAnswer as error:
            if time.monotonic() > until:
                raise
            print(f"{error}; the run goes on when it is back", file=sys.stderr)
            time.sleep(LOOK_S)


def counted(counts: dict[str, int]) -> str:
    """The counts that are not nought, in words."""
    return ", ".join(f"{number:,} {word.replace('_', ' ')}" for word, number in counts.items() if number)


def plan_lines(plan: dict[str, Any], items: list[dict[str, Any]]) -> list[str]:
    """The plan as a person reads it."""
    lines = [f"plan {plan['id']}: {counted(plan['counts'])}"]
    if plan["searched"]:
        lines.append(f"  {plan['searched']}")
    lines += [
        f"  {reason['tasks']:>7,} {reason['answer']:<8} {reason['name']}: {printable(reason['words'])}"
        for reason in plan["reasons"]
    ]
    for item in items:
        name = printable(" ".join(part for part in (item["name"], item["key"]) if part))
        lines.append(f"  {item['task']} {item['answer']:<8} {name}")
    left = plan["counts"]["total"] - len(items)
    return [*lines, f"  and {left:,} more"] if left > 0 else lines


def printable(text: str) -> str:
    """What a task contains, without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
