"""The daemon's command line: serve, config, token. Heavy imports stay inside the command that needs them.

Exit codes: 0 done, 1 failed, 2 wrong usage. An error is one line that says what to do, never a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from looseends.cli import COMMANDS
from looseends.errors import LooseEndsError, UsageError
from looseends_daemon.commands.help import Help

DONE, FAILED, USAGE = 0, 1, 2
EXTRA = ("aiohttp", "aiosqlite", "jinja2", "msgspec")
"""What `pip install looseends` leaves out; found missing only by the command that needs it."""

TOP = """\
Every task that was started is accounted for, and if we cannot account for it,
we say so.

  looseends serve                 the daemon and its dashboard; needs no settings
  looseends demo                  lose work on purpose, and watch it being found
  looseends exec --name nightly --deadline 2h -- /usr/local/bin/backup
  looseends instrument -- uvicorn shop:app --workers 2
  looseends ls                    the loose ends; `show ID`: what became of one
  looseends replay is:loose       plan to run them again; with --yes, do
  looseends token create --role ingest --service shop-web

`looseends COMMAND --help` says more, with examples.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    parser = _parser("".join(given[:1]))
    args = parser.parse_args(given)
    if not hasattr(args, "run"):
        parser.print_help()
        return USAGE
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        print(f'looseends: this command needs {error.name}; pip install "looseends[daemon]"', file=sys.stderr)
        return USAGE
    except UsageError as error:
        return _say(error, USAGE)
    except LooseEndsError as error:
        return _say(error, FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _say(error: LooseEndsError, code: int) -> int:
    hint = f" ({error.hint})" if error.hint else ""
    print(f"looseends: {error}{hint}", file=sys.stderr)
    return code


def _parser(command: str) -> argparse.ArgumentParser:
    """All commands; of a daemon that runs for months, its own alone."""
    raw = Help
    parser = argparse.ArgumentParser(prog="looseends", description=TOP, formatter_class=raw)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, words in COMMANDS.items():  # the client's own: its entry point takes them before it comes here
        commands.add_parser(name, help=words, add_help=False)
    _serve_parser(commands, raw)
    _config_parser(commands, raw)
    _token_parser(commands, raw)
    if command != "serve":
        _add_others(commands, raw)
    words = "print the version"
    version = commands.add_parser(
        "version", help=words, description="Print the version.", formatter_class=raw, epilog="example:\n  looseends version"
    )
    version.set_defaults(run=_version)
    return parser


def _add_others(commands: Any, raw: Any) -> None:
    from looseends_daemon.commands import deciding, demo, reading, replay, storage

    storage.add(commands, raw, _settings)
    demo.add(commands, raw)
    reading.add(commands, raw, _settings)
    deciding.add(commands, raw, _settings)
    replay.add(commands, raw, _settings)


def _serve_parser(commands: Any, raw: Any) -> None:
    serve = commands.add_parser(
        "serve",
        help="start the daemon and its dashboard",
        formatter_class=raw,
        description="Start the daemon. Without a configuration it listens on 127.0.0.1:3637 and a unix socket,\n"
        "keeps everything in one SQLite file of yours, and prints a link that signs you in.",
        epilog="example:\n  looseends serve -c /etc/looseends.toml --listen 127.0.0.1:3637 --db /var/lib/looseends.db",
    )
    serve.add_argument("-c", dest="config", metavar="CONFIG", help="configuration file (TOML); see config.example.toml")
    serve.add_argument(
        "--listen", action="append", default=[], metavar="ADDRESS", help='"127.0.0.1:3637" or "unix:PATH"; may be repeated'
    )
    serve.add_argument("--db", metavar="PATH", help="database file; made if it is missing")
    serve.set_defaults(run=_serve)


def _config_parser(commands: Any, raw: Any) -> None:
    config = commands.add_parser(
        "config",
        help="check, show or make a configuration",
        formatter_class=raw,
        description="The configuration of the daemon: check it before it is used, show what is in force, print an example.",
        epilog="examples:\n  looseends config init > config.toml\n  looseends config check config.toml",
    )
    acts = config.add_subparsers(title="acts", metavar="ACT", required=True)
    check = acts.add_parser(
        "check",
        help="name every mistake with its line",
        formatter_class=raw,
        description="Name every mistake of a configuration with its line, and what was meant. Exit code 1 if there is one.",
        epilog="examples:\n  looseends config check config.toml\n  looseends config check --probe config.toml",
    )
    check.add_argument("file", help="a configuration (TOML)")
    check.add_argument("--probe", action="store_true", help="also send a test to every endpoint, and one heartbeat")
    check.set_defaults(run=_config_check)
    show = acts.add_parser(
        "show",
        help="print what is in force, secrets masked",
        formatter_class=raw,
        description="Print what is in force: the file, the environment and the defaults together, secrets masked.",
        epilog="example:\n  looseends config show -c /etc/looseends.toml",
    )
    show.add_argument("-c", dest="config", metavar="CONFIG", help="configuration file (TOML); without it, the defaults")
    show.set_defaults(run=_config_show)
    init = acts.add_parser(
        "init",
        help="print a commented example",
        formatter_class=raw,
        description="Print an example with every setting, its default and what it is for.",
        epilog="example:\n  looseends config init > config.toml",
    )
    init.set_defaults(run=_config_init)


def _token_parser(commands: Any, raw: Any) -> None:
    token = commands.add_parser(
        "token",
        help="make, list or revoke access tokens",
        formatter_class=raw,
        description="Access tokens: for services elsewhere (ingest), for those who look (viewer) or act (operator). It works on\n"
        "the database file, while the daemon runs or not.",
        epilog="examples:\n  looseends token create --role ingest --service shop-web\n  looseends token list",
    )
    acts = token.add_subparsers(title="acts", metavar="ACT", required=True)
    create = acts.add_parser(
        "create",
        help="make a token and print it, once, alone on standard output",
        formatter_class=raw,
        description="Make a token and print it, once, alone on standard output. The client reads it from LOOSEENDS_TOKEN_FILE.",
        epilog="example:\n  looseends token create --role ingest --service shop-web > shop-web.token",
    )
    roles = ("ingest", "viewer", "operator")
    create.add_argument("--role", required=True, choices=roles, metavar="ROLE", help="ingest, viewer or operator")
    create.add_argument("--service", help="the service an ingest token speaks for")
    create.add_argument("--name", default="", help="what the audit log calls whoever uses it")
    create.set_defaults(run=_token_create)
    listed = acts.add_parser(
        "list",
        help="list tokens, without their secrets",
        formatter_class=raw,
        description="List tokens, without their secrets.",
        epilog="example:\n  looseends token list --json",
    )
    listed.add_argument("--json", action="store_true", help="as JSON")
    listed.set_defaults(run=_token_list)
    revoke = acts.add_parser(
        "revoke",
        help="end a token and its sessions",
        formatter_class=raw,
        description="End a token, and the sessions that were opened with it.",
        epilog="example:\n  looseends token revoke in_4c8963a753",
    )
    revoke.add_argument("id", help="as `looseends token list` prints it")
    revoke.set_defaults(run=_token_revoke)
    for act in (create, listed, revoke):
        act.add_argument("-c", dest="config", metavar="CONFIG", help="configuration file that names the database")
        act.add_argument("--db", metavar="PATH", help="database file")


# --- commands -----------------------------------------------------------------------------------------------------


def _version(args: argparse.Namespace) -> int:
    from importlib.metadata import version

    print(version("looseends"))
    return DONE


def _settings(args: argparse.Namespace) -> Any:
    from looseends_daemon import config

    settings = config.load(args.config, os.environ)
    return config.with_flags(settings, listen=tuple(getattr(args, "listen", ())), path=getattr(args, "db", None))


def _serve(args: argparse.Namespace) -> int:
    from looseends_daemon import thin

    thin.prepare()
    from looseends_daemon.serve import serve

    return serve(_settings(args), lambda: _settings(args))


def _config_check(args: argparse.Namespace) -> int:
    from looseends_daemon import config

    settings = config.load(args.file, os.environ)
    print(f"{args.file}: nothing wrong")
    if args.probe:
        from looseends_daemon.commands.probe import probe

        return DONE if probe(settings) else FAILED
    return DONE


def _config_show(args: argparse.Namespace) -> int:
    from looseends_daemon import config

    print(config.show(config.load(args.config, os.environ)), end="")
    return DONE


def _config_init(args: argparse.Namespace) -> int:
    from looseends_daemon import config

    print(config.render_example(), end="")
    return DONE


def _token_create(args: argparse.Namespace) -> int:
    from looseends_daemon.store import access

    with access.offline(_settings(args).storage.path) as conn:
        token = access.create_token(conn, role=args.role, service=args.service, name=args.name, now=time.time_ns())
    print(token)
    return DONE


def _token_list(args: argparse.Namespace) -> int:
    from looseends.wire import format_time
    from looseends_daemon.store import access

    with access.offline(_settings(args).storage.path) as conn:
        found = access.tokens(conn)
    if args.json:
        rows = [{"id": t.id, "role": t.role, "service": t.service, "name": t.name, "created_at": t.created_at} for t in found]
        print(json.dumps([{**row, "created_at": format_time(int(row["created_at"] or 0))} for row in rows], indent=1))
        return DONE
    print(f"{'ID':<16} {'ROLE':<9} {'SERVICE':<20} {'NAME':<20} CREATED")
    for token in found:
        print(f"{token.id:<16} {token.role:<9} {token.service or '-':<20} {token.name:<20} {format_time(token.created_at)}")
    return DONE


def _token_revoke(args: argparse.Namespace) -> int:
    from looseends_daemon.store import access

    with access.offline(_settings(args).storage.path) as conn:
        if not access.revoke_token(conn, args.id, now=time.time_ns()):
            raise LooseEndsError(f"there is no live token {args.id!r}", hint="looseends token list shows them")
    print(f"{args.id} is revoked")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
