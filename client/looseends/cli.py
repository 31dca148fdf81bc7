"""The one entry point, `looseends`: what needs only the client is done here, the rest is the daemon's command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from .errors import LooseEndsError, UsageError
from .lifecycle import VERSION

DONE, FAILED, USAGE = 0, 1, 2
COMMANDS = {
    "exec": "run a command as one task: cron, timers, scripts",
    "instrument": "run a Python program with capture and no code change",
}
"""What the thin client does alone, by the daemon's list of commands too; `doctor --app` is the third."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. -> 0 done, 1 failed, 2 wrong usage (or the daemon's part is not installed); `exec`: the command's own."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["version"], ["--version"]):
        print(VERSION)
        return DONE
    run = _ours(arguments)
    if run is None:
        return _daemons(arguments)
    try:
        return run(arguments[1:])
    except UsageError as error:
        return _say(error, USAGE)
    except LooseEndsError as error:
        return _say(error, FAILED)


def _ours(arguments: list[str]) -> Callable[[Sequence[str]], int] | None:
    """The client's own command among them, or None."""
    name = arguments[0] if arguments else ""
    if name == "doctor" and any(word == "--app" or word.startswith("--app=") for word in arguments):
        from .coverage import HELP as COVERAGE_HELP
        from .coverage import main as coverage

        return _help(COVERAGE_HELP, coverage)
    if name == "exec":
        from .command import HELP as EXEC_HELP
        from .command import main as command

        return _help(EXEC_HELP, command)
    if name == "instrument":
        from .instrument import HELP as INSTRUMENT_HELP
        from .instrument import main as instrument

        return _help(INSTRUMENT_HELP, instrument)
    return None


def _help(text: str, run: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """`run`, or its help where that is asked for first: what stands after the inner command is the inner command's."""

    def helped(arguments: Sequence[str]) -> int:
        if arguments and arguments[0] in ("-h", "--help"):
            print(text)
            return DONE
        return run(arguments)

    return helped


def _say(error: LooseEndsError, code: int) -> int:
    hint = f" ({error.hint})" if error.hint else ""
    print(f"{_named(str(error))}{hint}", file=sys.stderr)
    return code


def _named(text: str) -> str:
    """Every line of ours begins with our name; a message that names its command has it already."""
    return text if text.startswith("looseends ") else f"looseends: {text}"


def _daemons(arguments: list[str]) -> int:
    try:
        from looseends_daemon.cli import main as daemon_main
    except ModuleNotFoundError as error:
        if arguments in ([], ["-h"], ["--help"]):
            return _client_help(bool(arguments))
        print(f'looseends: {error.name} is not installed; pip install "looseends[daemon]"', file=sys.stderr)
        return USAGE
    return int(daemon_main(arguments) or 0)


def _client_help(asked: bool) -> int:
    """Without the daemon's part: the commands that are here, and what the others need."""
    print(f"usage: looseends [-h] {{{','.join(COMMANDS)}}} ...\n")
    for name, words in COMMANDS.items():
        print(f"  {name:<12} {words}")
    print('\nserve, doctor and the rest need the daemon: pip install "looseends[daemon]"')
    return DONE if asked else USAGE


if __name__ == "__main__":
    sys.exit(main())
