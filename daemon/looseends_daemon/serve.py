"""`looseends serve`: open the doors, say where they are and what to do next, run until somebody says stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from looseends.errors import LooseEndsError
from looseends_daemon.app import Daemon, running
from looseends_daemon.config import Log, Settings
from looseends_daemon.reload import changed_sections, merge
from looseends_daemon.services.shell import Loop
from looseends_daemon.systemd import Watchdog, here

log = logging.getLogger("looseends")


def serve(settings: Settings, read_again: Callable[[], Settings]) -> int:
    """Run a daemon until SIGTERM or SIGINT; returns the exit code. Raises StoreError and ListenError with a hint.

    At SIGHUP `read_again` reads the configuration anew (raises ConfigError); signals that come together make one reload.
    """
    os.umask(0o077)
    set_up_log(settings.log)
    return asyncio.run(_serve(settings, read_again))


async def _serve(settings: Settings, read_again: Callable[[], Settings]) -> int:
    signals, systemd = _Signals(), here()
    async with running(settings) as daemon:
        print(await greeting(daemon), flush=True)
        watchdog = Loop("watchdog", Watchdog(systemd, daemon.hanging).run_once, idle_s_max=systemd.watchdog_s or 60.0)
        if systemd.watchdog_s is not None:
            watchdog.start()
        systemd.ready(f"listening on {', '.join(daemon.listener.addresses if daemon.listener else ())}")
        while await signals.next() == signal.SIGHUP:
            systemd.reloading()
            systemd.ready(await _reload(daemon, read_again))
        print("looseends: stopping", flush=True)
        systemd.stopping()
        await watchdog.stop()
    return 0


class _Signals:
    """What was asked for by signals. A stop goes before a reload; however many of one kind come, they are one."""

    def __init__(self) -> None:
        self._came: set[signal.Signals] = set()
        self._news = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._take, number)

    def _take(self, number: signal.Signals) -> None:
        self._came.add(number)
        self._news.set()

    async def next(self) -> signal.Signals:
        """Wait for one."""
        await self._news.wait()
        number = next((one for one in self._came if one != signal.SIGHUP), signal.SIGHUP)
        self._came.discard(number)
        if not self._came:
            self._news.clear()
        return number


async def _reload(daemon: Daemon, read_again: Callable[[], Settings]) -> str:
    """Take what changed in the configuration, or keep it all; says in one line what became of it, and returns that line."""
    old = daemon.settings
    try:
        new, waiting = merge(old, await asyncio.to_thread(read_again))
        changed = changed_sections(old, new)
        if changed:
            await daemon.adopt(new)
    except LooseEndsError as error:
        words = f"reload refused, the old configuration stays in force: {'; '.join(str(error).splitlines())}"
        log.error("%s", words)
        return words
    except Exception as error:
        log.error("reload failed; what had not changed by then stays as it was", exc_info=error)
        return f"reload failed: {error}"
    words = f"reloaded: {', '.join(changed) or 'nothing'} changed"
    if waiting:
        words += f"; needs a restart, the old value stays in force: {', '.join(waiting)}"
    log.log(logging.WARNING if waiting else logging.INFO, "%s", words)
    logging.getLogger().setLevel(new.log.level.upper())
    return words


async def greeting(daemon: Daemon) -> str:
    """Where to go and what to do next. The link signs in once; the token beside the database does so always."""
    assert daemon.listener is not None
    http = next((address for address in daemon.listener.addresses if address.startswith("http")), None)
    base = daemon.settings.server.external_url or http
    lines = ["looseends is running", ""]
    if base is not None:
        lines.append(f"  dashboard    {base}/sign-in/{await daemon.sign_in_code()}   (this link signs you in, once)")
    lines += [f"  listening    {address}" for address in daemon.listener.addresses]
    lines += [
        f"  database     {daemon.database.path}",
        f"  token        {daemon.database.path}.token   (for the sign-in page and the command line)",
        "",
        "Next: add two lines to a service and lose something on purpose.",
        "",
        '    import looseends; looseends.init(service="shop-web")',
        "    @looseends.task",
        "",
        "The dashboard's setup page has the snippets. Ctrl-C stops.",
    ]
    return "\n".join(lines)


class TextFormatter(logging.Formatter):
    """One line a message, tracebacks apart: what a message quotes of others can neither begin a line nor colour a terminal."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message with its control characters written out."""
        said = super().formatMessage(record)
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in said)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, so that no message can forge another."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as JSON: at, level, logger, message, and the traceback where there is one."""
        said = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def set_up_log(log: Log) -> None:
    """Text on a terminal, JSON elsewhere, unless the configuration says."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = log.format == "json" or (log.format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=log.level.upper(), handlers=[handler], force=True)
