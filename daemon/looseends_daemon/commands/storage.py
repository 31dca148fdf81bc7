"""`looseends purge`, `backup`, `restore` and `doctor`: what a person does with the storage, with the daemon running or not.

Rules: standard output holds the result, progress and questions go to standard error; nothing is removed before its count was
shown, and without `--yes` nothing is removed at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from looseends.errors import UsageError
from looseends.wire import NS, format_time, parse_time

if TYPE_CHECKING:
    from looseends_daemon.config import Settings

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
SettingsOf = Callable[[argparse.Namespace], Any]
_AGE = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)


def add(commands: Any, raw: Any, settings_of: SettingsOf) -> None:
    """Add the four commands. `settings_of` reads -c and --db."""
    makers = (_purge_parser, _backup_parser, _restore_parser, _doctor_parser)
    made = [make(commands, raw) for make in makers]
    for parser, run in made:
        parser.add_argument("-c", dest="config", metavar="CONFIG", help="configuration file that names the database")
        parser.add_argument("--db", metavar="PATH", help="database file")
        parser.add_argument("--json", action="store_true", help="the result as JSON")
        parser.set_defaults(run=lambda args, run=run: run(settings_of(args), args))


def _purge_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "purge",
        help="remove tasks by query or age",
        formatter_class=raw,
        description="Remove tasks with everything kept of them. Open tasks and open loose ends always stay.\n"
        "Without --yes it only counts.",
        epilog="example:\n  looseends purge name:mail.* --before 2d\n  looseends purge --before 2026-11-01T00:00:00Z --yes",
    )
    parser.add_argument("query", nargs="*", help="which tasks, as on the pages: name:mail.* service:shop key:order-7")
    parser.add_argument("--before", metavar="WHEN", help='only tasks begun before a time, or that long ago: "30d", "12h"')
    parser.add_argument("--since", metavar="WHEN", help="only tasks begun since then")
    parser.add_argument("--yes", action="store_true", help="remove them; without it nothing is removed")
    return parser, run_purge


def _backup_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "backup",
        help="copy the database to a new file, verified",
        formatter_class=raw,
        description="Copy the database as it is at one moment, while the daemon runs or not. The file holds order keys\n"
        "in clear and is made with mode 0600.",
        epilog="example:\n  looseends backup /var/backups/looseends-$(date +%F).db",
    )
    parser.add_argument("file", help="a file that does not exist yet")
    return parser, run_backup


def _restore_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "restore",
        help="put a backup in the place of the database",
        formatter_class=raw,
        description="Put a backup in the place of the database. The daemon must be stopped; the old file is kept beside it.",
        epilog="example:\n  looseends restore /var/backups/looseends-2026-11-20.db",
    )
    parser.add_argument("file", help="what `looseends backup` wrote")
    return parser, run_restore


def _doctor_parser(commands: Any, raw: Any) -> tuple[Any, Any]:
    parser = commands.add_parser(
        "doctor",
        help="look for trouble: storage, clock, disk, spools, tokens",
        formatter_class=raw,
        description="Look for trouble and say what to do. Reads the whole database once; changes nothing.\n"
        "Exit code 0: nothing is wrong, 1: somebody has to act.",
        epilog="examples:\n  looseends doctor -c /etc/looseends.toml\n"
        "  looseends doctor --app shop:app     what of an application is captured, instead",
    )
    return parser, run_doctor


def run_doctor(settings: Settings, args: argparse.Namespace) -> int:
    """Every check; the exit code says whether somebody has to act."""
    from looseends_daemon.commands import doctor

    return doctor.run(settings, args.json)


# --- purge --------------------------------------------------------------------------------------------------------


def moment(text: str, now: int) -> int:
    """A time (ns) as a person writes it: RFC 3339, or an age such as "30d". Raises UsageError."""
    age = _AGE.fullmatch(text)
    if age is not None:
        return max(0, now - int(age[1]) * UNITS_S[age[2]] * NS)
    try:
        return parse_time(text)
    except ValueError as error:
        raise UsageError(f"{text!r} cannot be read: {error}", hint='or an age like "30d", "12h", "45m"') from None


def run_purge(settings: Settings, args: argparse.Namespace) -> int:
    """Count, and with --yes remove; on the running daemon through its API, else on the file. Raises LooseEndsError."""
    from looseends_daemon.store.files import holder

    now = time.time_ns()
    wish: dict[str, Any] = {"q": " ".join(args.query)}
    if args.before is None and not args.query:
        raise UsageError("say what shall go", hint='a query, or --before "30d"; looseends purge --help has examples')
    wish["to"] = now if args.before is None else moment(args.before, now)
    if args.since is not None:
        wish["from"] = moment(args.since, now)
    served = holder(settings.storage.path) is not None
    counted, removed = (_over_http if served else _on_the_file)(settings, wish, args.yes)
    if args.json:
        print(json.dumps({**counted, "removed": removed}))
    else:
        _tell_purge(counted, removed, args.yes)
    return 0


def _tell_purge(counted: dict[str, int], removed: int, confirmed: bool) -> None:
    stays = f"{counted['open']:,} open and {counted['loose']:,} loose ends stay"
    if confirmed:
        print(f"removed {removed:,} tasks; {stays}")
    else:
        print(f"{counted['removable']:,} of {counted['tasks']:,} tasks would be removed; {stays}")
        print("nothing was removed: say --yes to do it", file=sys.stderr)


def _over_http(settings: Settings, wish: dict[str, Any], confirmed: bool) -> tuple[dict[str, int], int]:
    from looseends_daemon.commands.asking import ask

    counted = ask(settings, "POST", "/api/v1/purge", wish)
    removed, more = 0, confirmed and counted["removable"] > 0
    while more:
        done = ask(settings, "POST", "/api/v1/purge", {**wish, "confirm": True})
        removed, more = removed + done["removed"], done["more"]
        _progress(removed, counted["removable"], "tasks removed")
    return {name: counted[name] for name in ("tasks", "removable", "open", "loose")}, removed


def _on_the_file(settings: Settings, wish: dict[str, Any], confirmed: bool) -> tuple[dict[str, int], int]:
    return asyncio.run(_purge_file(settings, wish, confirmed))


async def _purge_file(settings: Settings, wish: dict[str, Any], confirmed: bool) -> tuple[dict[str, int], int]:
    from looseends_daemon.core.query import QueryError
    from looseends_daemon.store import purge
    from looseends_daemon.store.connection import Database
    from looseends_daemon.store.files import header

    header(settings.storage.path)  # a purge makes no database
    database = await Database.open(settings.storage.path)
    try:
        asked = purge.Wish(q=wish["q"], from_=wish.get("from", 0), to=wish["to"])
        counted = await purge.count(database, asked, time.time_ns())
        removed, more = 0, confirmed and counted.removable > 0
        while more:
            done = await purge.purge(database, asked, "command line", time.time_ns)
            removed, more = removed + done.removed, done.more
            _progress(removed, counted.removable, "tasks removed")
        return {name: getattr(counted, name) for name in counted.__struct_fields__}, removed
    except QueryError as error:
        raise UsageError(str(error), hint=", ".join(error.allowed)) from None
    finally:
        await database.close()


# --- backup and restore -------------------------------------------------------------------------------------------


def run_backup(settings: Settings, args: argparse.Namespace) -> int:
    """Copy the database to a new file. Raises StoreError."""
    from looseends_daemon.store import backup

    made = backup.backup(settings.storage.path, args.file, lambda done, whole: _progress(done, whole, "pages copied"))
    _tell_copy(made, "backed up to", args.json)
    return 0


def run_restore(settings: Settings, args: argparse.Namespace) -> int:
    """Put a backup in the place of the database. Raises StoreError."""
    from looseends_daemon.store import backup

    stamp = re.sub(r"\D", "", format_time(time.time_ns()))[:14]
    path = settings.storage.path
    made = backup.restore(path, args.file, stamp, lambda done, whole: _progress(done, whole, "bytes copied"))
    _tell_copy(made, "restored to", args.json)
    return 0


def _tell_copy(made: Any, what: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": made.path, "bytes": made.size, "tasks": made.tasks, "aside": made.aside}))
        return
    print(f"{what} {made.path}: {made.tasks:,} tasks, {made.size:,} bytes, verified")
    if made.aside is not None:
        print(f"the file that was there is kept as {made.aside}")


def _progress(done: int, whole: int, words: str) -> None:
    """One line that is written over, for people only."""
    if sys.stderr.isatty():
        end = "\n" if done >= whole else ""
        print(f"\r{done:,} of {whole:,} {words}", end=end, file=sys.stderr, flush=True)
