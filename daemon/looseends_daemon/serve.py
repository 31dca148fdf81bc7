"""`looseends serve`: open the doors, say where they are and what to do next, run until somebody says stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time

from looseends_daemon.app import Daemon, running
from looseends_daemon.config import Log, Settings


def serve(settings: Settings) -> int:
    """Run a daemon until SIGTERM or SIGINT; returns the exit code. Raises StoreError and ListenError with a hint."""
    os.umask(0o077)
    set_up_log(settings.log)
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as daemon:
        print(await greeting(daemon), flush=True)
        await stop.wait()
        print("looseends: stopping", flush=True)
    return 0


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
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=log.level.upper(), handlers=[handler], force=True)
