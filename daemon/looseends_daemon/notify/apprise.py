"""Hands notices to Apprise: e-mail, Slack, PagerDuty, ntfy and a hundred more, each by its own address.

Rules:

1. `apprise` is an extra and is imported where such an endpoint is configured; without it an attempt says what to install.
2. Apprise blocks, so each attempt has a daemon thread of its own. It cannot be ended from outside: after the time limit it
   is left behind and counts towards THREADS_MAX; when all hang, an attempt fails at once instead of piling up more.
3. Apprise opens its own connections. An audit hook of the interpreter sees every connect of these threads with the address that
   is really connected to, and refuses what [network] forbids, redirects included.
4. Apprise answers yes or no; why not, it says in its log. What it logged in the thread of the attempt is the reason shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import threading
import time
import warnings
from types import ModuleType
from typing import Any

from looseends_daemon.core.delivery import ANSWER_BYTES_KEPT_MAX, Message, Outcome
from looseends_daemon.core.texts import Text, text_of
from looseends_daemon.notify.reach import Denied, Reach, reason_against
from looseends_daemon.notify.webhook import Target

THREADS_MAX = 8
LINES_KEPT_MAX = 5
MISSING = 'Apprise is not installed here: pip install "looseends[apprise]"'
_TYPES = {"critical": "failure", "warning": "warning", "info": "info"}
_here = threading.local()
_hooked = threading.Lock()
_hook_is_set = False


class AppriseSender:
    """A sender for one endpoint. Close it with `close()`."""

    def __init__(self, target: Target, reach: Reach) -> None:
        self._target = target
        self._reach = reach
        self._running = 0
        self._apprise = _imported(target.url)

    async def close(self) -> None:
        """Nothing is kept open; threads that still hang end with the process."""

    async def post(self, message: Message) -> Outcome:
        """Send one notice once. Returns what came of it; never raises, cancellation apart."""
        started = time.monotonic()
        outcome = await self._attempt(json.loads(message.body))
        took = round(time.monotonic() - started, 6)
        return Outcome(accepted=outcome.accepted, duration=took, detail=outcome.detail, timed_out=outcome.timed_out)

    async def _attempt(self, event: dict[str, Any]) -> Outcome:
        if self._running >= THREADS_MAX:
            return Outcome(detail=f"not tried: {THREADS_MAX} earlier attempts still hang", timed_out=True)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome] = loop.create_future()
        self._running += 1
        worker = threading.Thread(target=self._work, args=(event, loop, done), name="looseends-apprise", daemon=True)
        worker.start()
        try:
            async with asyncio.timeout(self._target.timeout):
                return await asyncio.shield(done)
        except TimeoutError:
            return Outcome(detail=f"no answer within {self._target.timeout:g} s", timed_out=True)

    def _work(self, event: dict[str, Any], loop: asyncio.AbstractEventLoop, done: asyncio.Future[Outcome]) -> None:
        """The thread of one attempt."""
        try:
            outcome = _notify(self._apprise, self._target.url, event, self._reach)
        except Exception as error:  # noqa: BLE001 - a plugin of somebody else may raise anything; it is what came of the attempt
            outcome = Outcome(detail=f"{type(error).__name__}: {error}"[:ANSWER_BYTES_KEPT_MAX])
        with contextlib.suppress(RuntimeError):  # the loop is closed: this attempt was left behind by a daemon that has stopped
            loop.call_soon_threadsafe(self._ended, done, outcome)

    def _ended(self, done: asyncio.Future[Outcome], outcome: Outcome) -> None:
        self._running -= 1
        if not done.done():
            done.set_result(outcome)


def _imported(url: str) -> ModuleType | None:
    """Apprise and its plugin for this address, with the hook that guards its connections; None: it is not installed."""
    try:
        with _Heard(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports itself
            import apprise

            apprise.Apprise.instantiate(url, suppress_exceptions=True)
    except ImportError:
        return None
    _set_hook()
    return apprise


def _notify(apprise: ModuleType | None, url: str, event: dict[str, Any], reach: Reach) -> Outcome:
    """Blocks until Apprise has its answer."""
    if apprise is None:
        return Outcome(detail=MISSING)
    text = text_of(event)
    with _Heard() as heard:
        _here.reach, _here.denied = reach, None
        try:
            # The plugin itself: Apprise around it would hand the work to threads of its own, unguarded and without an end.
            plugin = apprise.Apprise.instantiate(url, suppress_exceptions=True)
            if plugin is None:
                return Outcome(detail="Apprise does not understand the address; looseends config check says more")
            plugin.notify_format = apprise.NotifyFormat.TEXT
            told = plugin.notify(title=text.title, body=_body(text, event), notify_type=apprise.NotifyType(_type(event)))
        finally:
            _here.reach = None
    if _here.denied:
        return Outcome(detail=f"not sent: {_here.denied}")
    return Outcome(accepted=bool(told), detail="taken" if told else heard.words() or "Apprise could not send it")


def _body(text: Text, event: dict[str, Any]) -> str:
    """The text, and the notice's id: who gets it twice after a crash can tell."""
    return f"{text.body}\n\n{event['id']}"


def _type(event: dict[str, Any]) -> str:
    incident = event["data"].get("incident")
    if incident is None:
        return "info"
    return "success" if incident["state"] == "resolved" else _TYPES[incident["severity"]]


class _Heard(logging.Handler):
    """What Apprise logs in this thread while an attempt runs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._thread = threading.get_ident()
        self._lines: list[str] = []

    def __enter__(self) -> _Heard:
        log = logging.getLogger("apprise")
        log.addHandler(self)
        log.setLevel(logging.DEBUG)  # "Socket Exception: ..." is said at this level only
        log.propagate = False
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger("apprise").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep warnings, and what names the exception behind one."""
        said = record.getMessage()
        if record.thread == self._thread and (record.levelno >= logging.WARNING or "Exception" in said):
            self._lines = [*self._lines, " ".join(said.split())][-LINES_KEPT_MAX:]

    def words(self) -> str:
        """The lines as one."""
        return "; ".join(self._lines)[:ANSWER_BYTES_KEPT_MAX]


def _set_hook() -> None:
    """Once in a process: a hook cannot be taken out again. It looks at connects of our own threads only."""
    global _hook_is_set
    with _hooked:
        if not _hook_is_set:
            _hook_is_set = True
            sys.addaudithook(_watch)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    reach = getattr(_here, "reach", None)
    if reach is not None:
        _check(reach, args[1])


def _check(reach: Reach, address: Any) -> None:
    """Raises Denied for an address that is no IP address, or one that may not be reached."""
    try:
        against = reason_against(str(address[0]), reach) if isinstance(address, tuple) else "only IP addresses may be reached"
    except ValueError:
        against = f"{address[0]} is no IP address"
    if against is not None:
        _here.denied = against
        raise Denied(against)
