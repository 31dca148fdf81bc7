"""`looseends exec`: one command as one task, for cron, timers and everything that is no Python.

Rules: the command sees what it would see without us, and whoever started us sees what it would see of the command: its
output as it comes, its signals, its end. Its start is in the journal before it begins. No daemon: the spool keeps the
record, and the command waits for nobody.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import argv, launch, options, record, trouble
from .capture import encode_named
from .context import Task
from .errors import UsageError
from .journal import Journal
from .launch import NOT_FOUND, NOT_RUNNABLE, Status
from .lifecycle import PROCESS
from .plain import dumps
from .relay import KEPT, SAY_S, Channel, Relay, Tail, channels
from .slots import CANCELLED, FAILED, FINISHED, clean
from .spec import Spec, duration
from .task import key_text
from .wire import NAME_CHARS_MAX, TEXT_CHARS_MAX

SERVICE = "cron"
GOODBYE_S = 1.0
SWITCH_S = 0.0005
"""The sender imports what it needs while the command is about to begin: at Python's own 5 ms a turn that cost it 30 ms."""
NOT_REPLAYABLE = "a command is not run again from here: copy its command line and run it where it belongs"
HELP = """\
usage: looseends exec [OPTIONS] [--] COMMAND [ARGS...]

Run a command as one task: recorded before it begins, lost if it is killed, stuck past its deadline, failed with its
last output where its exit code is not 0. Exit code, signals and output are the command's own.

  --name NAME             what it is called on the pages; default: the command's file name
  --deadline TIME         stuck after this ("90s", "2h", "never"); default: the daemon's configuration, else 5m
  --key KEY               which piece of work this is, such as a date
  --service NAME          default: LOOSEENDS_SERVICE, else cron
  --environment NAME      default: LOOSEENDS_ENVIRONMENT, else production
  --progress-within TIME  stalled when it writes nothing for this long
  --tag NAME=TEXT         a short text to search by; may be repeated
  --redact WORD           hide what is named so in arguments and output, beside the usual; may be repeated
  --output WHAT           what is kept of its output: all, errors (standard error alone; the other is data), none (it is a
                          full-screen program); default: all, or errors where standard output goes to a file of its own

examples:
  looseends exec --name nightly.backup --deadline 2h -- /usr/local/bin/backup --all
  0 2 * * *  looseends exec --name nightly.backup --deadline 2h --key "$(date +\\%F)" -- /usr/local/bin/backup --all

exit codes: the command's own; 2 wrong usage, 126 the command cannot be run, 127 there is no such command"""
_VALUES = ("--name", "--deadline", "--key", "--service", "--environment", "--progress-within", "--tag", "--redact", "--output")


class Wish(NamedTuple):
    """What was asked for."""

    spec: Spec
    key: str | None
    command: list[str]
    redact: tuple[str, ...]
    output: str | None
    service: str | None
    environment: str | None


def main(arguments: Sequence[str]) -> int:
    """Run `looseends exec`. -> exit code. Raises UsageError."""
    wish = read(arguments)
    sys.setswitchinterval(SWITCH_S)
    sys.modules.setdefault("msgspec", None)  # type: ignore[arg-type]  # its import costs more than the two records it would write
    env = dict(os.environ)
    _introduce(wish)
    held = launch.hold_signals()
    if PROCESS.settings().disabled:
        return _replace(wish.command, env, held)
    try:
        child = launch.fork(wish.command, env, streams := _streams(wish), held)
    except OSError as error:
        return _not_begun(wish.command[0], error.errno or 0)
    words = argv.shown(wish.command, wish.redact)
    task = _record(wish, words.words)
    tail = Tail(lambda text: argv.cleaned(text, words.hidden, wish.redact))
    relay = Relay(streams, tail, lambda line: task.progress(note=line), _every_s(wish.spec))
    try:
        relay.start()
        status = _run(wish, task, child, relay, tail)
    except RuntimeError:  # no more threads: the child has not begun, and ends when it sees us go
        status = _failed_to_begin(wish.command[0], task, errno.EAGAIN)
    journal = PROCESS.journal
    PROCESS.goodbye(GOODBYE_S, reopen=False)
    if journal is not None:
        from .leftovers import send_leftovers

        send_leftovers(journal, PROCESS.settings())
    return launch.end_as(status)


def read(arguments: Sequence[str]) -> Wish:
    """The words after `looseends exec`. Raises UsageError."""
    found, command = options.split("exec", arguments, _VALUES)
    if not command or not command[0]:
        raise UsageError("looseends exec: which command? looseends exec --name nightly -- COMMAND [ARGS...]")
    given = {name: options.one(found, name, "exec") for name in _VALUES if name not in ("--tag", "--redact")}
    name = given["--name"]
    if name is None:
        name = clean(os.fsencode(os.path.basename(command[0]) or command[0]).decode("utf-8", "backslashreplace"))
    spec = Spec(
        name,
        None,
        source="exec",
        deadline=_duration(given, "--deadline"),
        progress_within=_duration(given, "--progress-within"),
        tags=_tags(found.get("--tag", [])),
    )
    for option in ("--key", "--service", "--environment"):
        text = given[option]
        if text is not None and (len(text) > NAME_CHARS_MAX or not text.isprintable() or not text.strip()):
            raise UsageError(f"looseends exec: {option} is 1 to {NAME_CHARS_MAX} printable characters, not {text!r:.250}")
    redact = tuple(word for word in found.get("--redact", []) if word)
    output = given["--output"]
    if output is not None and output not in KEPT:
        raise UsageError(f"looseends exec: --output is one of {', '.join(KEPT)}, not {output!r:.100}")
    return Wish(spec, given["--key"], command, redact, output, given["--service"], given["--environment"])


def _duration(given: dict[str, str | None], option: str) -> float | str | None:
    """A time that was given; `90` is 90 seconds, as in Python."""
    text = given[option]
    number = float(text) if text is not None and text.isascii() and text.isdigit() else text
    return duration(number, f"looseends exec: {option}")


def _tags(written: Sequence[str]) -> dict[str, str] | None:
    tags = {}
    for text in written:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"looseends exec: --tag is NAME=TEXT, such as --tag tier=gold, not {text!r:.100}")
        tags[name] = value
    return tags or None


def _introduce(wish: Wish) -> None:
    """Who we are. What the command itself inherits was copied before: it may be a service of its own."""
    PROCESS.given = {"service": SERVICE}
    for name, value in (("LOOSEENDS_SERVICE", wish.service), ("LOOSEENDS_ENVIRONMENT", wish.environment)):
        if value is not None:
            os.environ[name] = value
    if not os.environ.get("HOME"):  # systemd sets none for root; the daemon's spool is in the home of its user
        import pwd

        try:
            os.environ["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return


def _replace(command: Sequence[str], env: dict[str, str], held: launch.Held) -> int:
    """Switched off: become the command."""
    try:
        launch.become(command, env, held)
    except OSError as error:
        return _not_begun(command[0], error.errno or 0)


def _every_s(spec: Spec) -> float:
    """How often output is told as progress: well within the silence that would be a stall."""
    within = spec.fields.get("progress_within")
    return min(SAY_S, within / 4) if isinstance(within, float) else SAY_S


def _streams(wish: Wish) -> list[Channel]:
    """The command's output streams; none where it has our own, which no shortage of descriptors keeps it from using."""
    try:
        return channels(wish.output)
    except OSError as error:
        trouble.note("the output of a command is not kept", error)
        return []


def _not_begun(name: str, number: int) -> int:
    print(f"looseends: {name}: {os.strerror(number)}", file=sys.stderr)
    return NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR) else NOT_RUNNABLE


def _failed_to_begin(name: str, task: Task, number: int) -> Status:
    code = _not_begun(name, number)
    kind = "CommandNotFound" if code == NOT_FOUND else "CommandNotRunnable"
    _end(task, FAILED, {"error": {"type": kind, "message": clean(f"{name}: {os.strerror(number)}", TEXT_CHARS_MAX)}})
    return Status(code)


def _record(wish: Wish, words: list[str]) -> Task:
    try:
        text, _ = encode_named({"command": words})
    except Exception as error:  # noqa: BLE001 - words that cannot be written down must not stop what they name
        trouble.note("arguments could not be captured", error)
        text = "{}"
    extra = None if wish.key is None else {"key": key_text(wish.key)}
    return record.begin(wish.spec, text, NOT_REPLAYABLE, extra=extra)


def _run(wish: Wish, task: Task, child: launch.Child, relay: Relay, tail: Tail) -> Status:
    """Let it run to its end, and record that."""
    reason = launch.begin(child)
    status = launch.wait(child, relay.resized, relay.finish)
    if reason:
        return _failed_to_begin(wish.command[0], task, reason)
    _end(task, *outcome(status, tail.text(), tail.total))
    return status


def outcome(status: Status, output: str, written: int) -> tuple[int, dict[str, Any]]:
    """How a command's end is recorded: (status, detail)."""
    if status.interrupted:
        return CANCELLED, {"reason": "requested"}
    if status.code == 0:
        return FINISHED, {"result": {"exit_code": 0, "output": output, "output_bytes": written}}
    last = next((line.strip() for line in reversed(output.split("\n")) if line.strip()), "")
    said = f"killed by {signal_name(status.signal)}" if status.signal else f"exit code {status.code}"
    message = clean(f"{said}: {last}" if last else said, TEXT_CHARS_MAX)
    error = {"type": "Signal" if status.signal else "ExitCode", "message": message}
    return FAILED, {"error": {**error, "traceback": output} if output else error}


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end(task: Task, status: int, detail: dict[str, Any]) -> None:
    """As record.end, for an end that is no exception."""
    if task.segment is None:
        return
    try:
        Journal.end(task.segment, task.at, time.monotonic_ns(), status, dumps(detail).encode())
        task.state = "ended"
        if PROCESS.idle:
            PROCESS.wake()
    except Exception as error:  # noqa: BLE001 - the command has run; its exit code goes on whatever happens to its record
        trouble.note("an end could not be recorded", error)
