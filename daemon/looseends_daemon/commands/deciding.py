"""`looseends ack`, `silence` and `dismiss`: what a person decides about incidents and loose ends, in a terminal.

Rules: a dismissal of many shows what it would settle first, and without `--yes` settles nothing; what was decided can be taken
back with the id that was printed (dismissals for ten minutes). Every act is in the audit log under the operator's name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from looseends.errors import UsageError
from looseends_daemon.commands.asking import ask
from looseends_daemon.commands.reading import where_to_ask
from looseends_daemon.commands.storage import UNITS_S
from looseends_daemon.commands.tables import print_json, printable, table

DONE = 0
SettingsOf = Callable[[argparse.Namespace], Any]


def add(commands: Any, raw: Any, settings_of: SettingsOf) -> None:
    """Add the three commands. `settings_of` reads -c and --db."""
    for make in (_ack_parser, _silence_parser, _dismiss_parser):
        parser, run = make(commands, raw)
        where_to_ask(parser)
        parser.set_defaults(run=lambda args, run=run: run(settings_of(args), args))


def _ack_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "ack",
        help="say that you look after an incident",
        formatter_class=raw,
        description="Acknowledge an incident: it is not repeated while you look after it. It stays open until its loose ends\n"
        "are settled, and is told about again when it doubles or becomes more severe.",
        epilog='example:\n  looseends ack inc_019ab3 --note "restarting the mail worker" --for 2h',
    )
    parser.add_argument("incident", help="its id, as `looseends incidents` prints it")
    parser.add_argument("--note", default="", help="what you are about to do")
    parser.add_argument("--for", dest="span", metavar="SPAN", help='how long, such as "2h" (as configured: ack_expires)')
    return parser, run_ack


def _silence_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "silence",
        help="hold back notices for a while; list and end silences",
        formatter_class=raw,
        description="Hold back the notices of incidents that fit all matchers (=, !=, =~, !~ over service, name, environment,\n"
        "instance, problem, severity). Detection goes on; what is still open at the end is told then.\n"
        "Without arguments: list the silences.",
        epilog="examples:\n  looseends silence 'service=shop-web' 'name=~\"mail.*\"' --for 2h --comment 'provider is down'\n"
        "  looseends silence service=shop-web --for 2h --dry-run\n  looseends silence --end sil_019ab3",
    )
    parser.add_argument("matchers", nargs="*", metavar="MATCHER", help="such as service=shop-web")
    parser.add_argument("--for", dest="span", metavar="SPAN", help='how long, such as "2h" or "3d"')
    parser.add_argument("--comment", default="", help="why")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would hide now")
    parser.add_argument("--end", metavar="ID", help="end this silence now")
    return parser, run_silence


def _dismiss_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "dismiss",
        help="settle loose ends about which nothing is to be done",
        formatter_class=raw,
        description="Settle loose ends about which nothing is to be done: one task, an incident, or a query. Many are counted\n"
        "first, and settled only with --yes. For ten minutes it can be taken back.",
        epilog="examples:\n  looseends dismiss 0197a3c2-58d1-8c3e-9a41-6a1b5cf0d2e7 --note 'sent by hand'\n"
        "  looseends dismiss --query is:loose name:mail.* --note 'provider lost them' --yes\n"
        "  looseends dismiss --undo dis_019ab3",
    )
    parser.add_argument("id", nargs="?", help="the id of a task or of an incident")
    parser.add_argument("--query", nargs="+", metavar="WORD", help="every loose end that fits, as on the pages")
    parser.add_argument("--note", default="", help="why nothing is to be done; kept with the decision")
    parser.add_argument("--yes", action="store_true", help="do it; a query or an incident is only counted without it")
    parser.add_argument("--undo", metavar="ID", help="take this dismissal back")
    return parser, run_dismiss


def seconds(text: str) -> int:
    """A span as a person writes it. Raises UsageError."""
    if not (text[:-1].isascii() and text[:-1].isdigit() and 0 < int(text[:-1]) < 1_000_000 and text[-1:] in UNITS_S):
        raise UsageError(f"{text!r} is no span", hint='write it like "45m", "2h" or "3d"')
    return int(text[:-1]) * UNITS_S[text[-1]]


def run_ack(settings: Any, args: argparse.Namespace) -> int:
    """Acknowledge. Raises NoAnswer, UsageError."""
    body: dict[str, Any] = {"note": args.note}
    if args.span:
        body["expires"] = seconds(args.span)
    found = ask(settings, "POST", f"/api/v1/incidents/{quote(args.incident, safe='')}/acknowledge", body)
    if args.json:
        print_json(found)
    else:
        print(f"{found['id']} is acknowledged: {printable(found['title'])}")
    return DONE


def run_silence(settings: Any, args: argparse.Namespace) -> int:
    """Make, preview, end or list silences. Raises NoAnswer, UsageError."""
    if args.end:
        ended = ask(settings, "DELETE", f"/api/v1/silences/{quote(args.end, safe='')}")
        return _said(args, ended, f"{args.end} is over; what it held back and is still open is told now")
    if not args.matchers:
        return _list_silences(settings, args)
    if not args.span:
        raise UsageError("looseends silence: say how long", hint="--for 2h")
    wish = {"matchers": args.matchers, "duration": seconds(args.span)}
    if args.dry_run:
        preview = ask(settings, "POST", "/api/v1/silences", {**wish, "dry_run": True})
        titles = "".join(f"\n  {one['id']}  {printable(one['title'])}" for one in preview["items"])
        many = "1 incident" if preview["hides"] == 1 else f"{preview['hides']} incidents"
        return _said(args, preview, f"it would hide {many} now{titles}")
    made = ask(settings, "POST", "/api/v1/silences", {**wish, "comment": args.comment})
    return _said(args, made, f"{made['id']} holds back notices until {made['ends_at']}; end it with --end {made['id']}")


def _list_silences(settings: Any, args: argparse.Namespace) -> int:
    page = ask(settings, "GET", "/api/v1/silences?limit=200")
    if args.json:
        print_json(page)
        return DONE
    rows = [(s["state"], s["ends_at"], s["id"], s["author"], " ".join(s["matchers"]), s["comment"]) for s in page["items"]]
    print(table(("STATE", "ENDS", "ID", "BY", "MATCHERS", "COMMENT"), rows))
    return DONE


def run_dismiss(settings: Any, args: argparse.Namespace) -> int:
    """Dismiss, or take back. Raises NoAnswer, UsageError."""
    if args.undo:
        undone = ask(settings, "DELETE", f"/api/v1/dismissals/{quote(args.undo, safe='')}")
        return _said(args, undone, f"{args.undo} is being taken back")
    if (args.id is None) == (args.query is None):
        raise UsageError("looseends dismiss: name one task or incident, or a --query", hint="looseends ls prints ids")
    if args.id is not None and not args.id.startswith("inc_"):
        task = ask(settings, "POST", f"/api/v1/tasks/{quote(args.id, safe='')}/dismiss", {"note": args.note})
        return _said(args, task, f"{task['name']} {task['id']} is dismissed")
    which = {"incident": args.id} if args.id is not None else {"q": " ".join(args.query)}
    frozen = ask(settings, "POST", "/api/v1/dismissals", which)
    if not args.yes:
        return _said(args, frozen, f"{frozen['count']} loose end(s) would be dismissed; nothing was done. Add --yes")
    made = ask(settings, "POST", "/api/v1/dismissals", {**which, "digest": frozen["digest"], "note": args.note})
    back = f"until {made['undo_until_at']} it can be taken back: looseends dismiss --undo {made['id']}"
    return _said(args, made, f"{made['total']} loose end(s) dismissed as {made['id']}; {back}")


def _said(args: argparse.Namespace, answer: Any, words: str) -> int:
    if args.json:
        print_json(answer)
    else:
        print(words)
    sys.stdout.flush()
    return DONE
