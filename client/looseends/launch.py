"""A command as our child: begun when we say so, dead when we are, with every signal that was meant for it.

Rules:

1. The child is forked before there is a thread, waits for `go`, and then becomes the command: what was recorded stands
   before its first instruction. Should we die, the kernel kills it (Linux; not the children that it made itself).
2. It stays in our process group, so the terminal treats both as one job: keys reach it without us. What the terminal sent
   (the kernel says so) is not sent again; what somebody sent to us alone is.
3. It gets the signal mask and the dispositions that we were started with.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from .relay import Channel

NOT_FOUND, NOT_RUNNABLE = 127, 126  # as every shell has it
_SIGNALS = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "CONT", "TSTP", "WINCH", "PWR")
FORWARDED = {number for name in _SIGNALS if (number := getattr(signal, f"SIG{name}", None)) is not None}
_KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
"""Typed at a terminal, these go to the whole group. A hang-up goes to the leader of the session alone, which may be us."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")


class Child(NamedTuple):
    """A child that waits to become its command: its pid, where to say `go`, and where it says why it could not."""

    pid: int
    go: int
    said: int


class Status(NamedTuple):
    """How a command ended: its exit code, or the signal that killed it (then `code` is 128 + signal). `interrupted`: by
    somebody at its terminal (Ctrl-C); a SIGINT that a program sent may be a deployment."""

    code: int
    signal: int = 0
    interrupted: bool = False


class Held(NamedTuple):
    """What of signals was in force when we began, for the command to find again."""

    mask: set[int]
    ignores_children: bool


def hold_signals() -> Held:
    """Keep every signal for `wait`, in this thread and those begun after it."""
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    if ignored:  # then the kernel would reap the command, and its exit code with it
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return Held(set(signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})), ignored)


def fork(command: Sequence[str], env: Mapping[str, str], streams: Sequence[Channel], held: Held) -> Child:
    """Make the child. Raises OSError: no more processes."""
    parent = os.getpid()
    wait, go = os.pipe()
    said, say = os.pipe()
    pid = os.fork()
    if pid:
        for fd in (wait, say, *(stream.inner for stream in streams)):
            os.close(fd)
        return Child(pid, go, said)
    try:
        os.close(go)
        if not _die_with(parent) or not os.read(wait, 1):
            os._exit(NOT_RUNNABLE)
        for stream in streams:
            for place in stream.places:
                os.dup2(stream.inner, place)
        become(command, env, held)
    except BaseException as error:  # noqa: BLE001 - a child that cannot begin tells its parent, and must not return from here
        os.write(say, str(getattr(error, "errno", 0) or errno.EINVAL).encode())
    os._exit(NOT_RUNNABLE)


def become(command: Sequence[str], env: Mapping[str, str], held: Held) -> NoReturn:
    """Replace this process by the command. Raises OSError: not found, not executable."""
    for name in _IGNORED_BY_PYTHON:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if held.ignores_children:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, held.mask)
    _execute(command, env)


def _execute(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Like `execvp` of C: along PATH, and what has no first line that says by whom it is run, is run by the shell."""
    name = command[0]
    paths = [name] if "/" in name else [os.path.join(folder or ".", name) for folder in os.get_exec_path(env)]
    worst: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    for path in paths:
        try:
            os.execve(path, list(command), env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                os.execve("/bin/sh", ["sh", path, *command[1:]], env)
            worst = error
    raise worst


def _die_with(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends. -> whether the parent is still there."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def _prctl(option: int, value: int) -> None:
    try:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (ImportError, OSError, AttributeError):  # an interpreter without ctypes: the rest works all the same
        return


def begin(child: Child) -> int:
    """Let the child become its command. -> 0, or the errno of why it could not."""
    try:
        os.write(child.go, b"g")
    except BrokenPipeError:  # it was killed while it waited; `wait` will say so
        return 0
    finally:
        os.close(child.go)
    with open(child.said, "rb") as said:
        reason = said.read(20)
    return int(reason) if reason.isdigit() else 0


def wait(child: Child, resized: Callable[[], None], ended: Callable[[], bool]) -> Status:
    """Forward signals until the child has ended and `ended()` says that all was passed on (SIGCHLD: look again).

    `resized` is called when our terminal has another size.
    """
    status: int | None = None
    interrupted = False
    while status is None or not ended():
        number, from_terminal = _next_signal()
        if number == signal.SIGCHLD:
            if status is None:
                found, code = os.waitpid(child.pid, os.WNOHANG)
                status = code if found else None
            continue
        interrupted = interrupted or (number == signal.SIGINT and from_terminal)
        if number == signal.SIGWINCH:
            resized()
        if status is None:
            _forward(child.pid, number, from_terminal)
        elif number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            break  # only its last output is left, and nobody wants it any more
    return _status(status, interrupted)


def _next_signal() -> tuple[int, bool]:
    """Wait for a signal. -> its number, and whether the kernel sent it to the whole group: then the child has it already."""
    wanted = FORWARDED | {signal.SIGCHLD}
    if sys.platform == "darwin":  # says nothing of the sender; a key typed there reaches the command twice
        return signal.sigwait(wanted), False
    info = signal.sigwaitinfo(wanted)
    return info.si_signo, info.si_code > 0


def _forward(pid: int, number: int, from_terminal: bool) -> None:
    if not from_terminal or number not in _KEYS:
        try:
            os.kill(pid, number)
        except OSError:  # it runs under another uid now, or has just ended
            return
    if number == signal.SIGTSTP:  # by its own means: the kernel stops nobody whose job no shell looks after
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})


def _status(status: int, interrupted: bool) -> Status:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Status(128 + number, number, interrupted and number == signal.SIGINT)
    code = os.WEXITSTATUS(status)
    return Status(code, 0, interrupted and code == 128 + signal.SIGINT)


def end_as(status: Status) -> int:
    """End as the command did: by its signal, so that whoever waits for us sees the same. -> its code, where that cannot be."""
    if status.signal:
        _prctl(_PR_SET_DUMPABLE, 0)  # the command has left its core; ours would tell nobody anything
        if status.signal != signal.SIGKILL:
            signal.signal(status.signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {status.signal})
        os.kill(os.getpid(), status.signal)
    return status.code
