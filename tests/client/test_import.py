"""`import looseends` is cheap: it brings none of the modules that make a start slow, and starts nothing."""

from __future__ import annotations

import json
import subprocess
import sys

SOURCE = """
import sys, threading, json, signal
before = set(sys.modules)
handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
import looseends
brought = sorted(set(sys.modules) - before)
assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
print(json.dumps({"brought": brought, "threads": threading.active_count()}))
"""
HEAVY = {
    *("asyncio", "http", "http.client", "dataclasses", "inspect", "typing_extensions", "logging", "urllib.request", "ssl"),
    *("email", "socket", "subprocess", "tempfile", "uuid", "decimal", "sqlite3", "multiprocessing", "concurrent.futures"),
    *("hashlib", "hmac", "gzip", "traceback", "importlib.metadata", "msgspec", "opentelemetry", "selectors", "queue", "argparse"),
}
OTHERS = ("looseends_daemon", "looseends_dashboard")


def test_the_import_brings_nothing_heavy_starts_nothing_and_handles_no_signal() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", SOURCE], capture_output=True, text=True, timeout=30, check=True)
    found = json.loads(done.stdout)
    assert found["threads"] == 1
    assert not HEAVY.intersection(found["brought"]), sorted(HEAVY.intersection(found["brought"]))
    ours = [name for name in found["brought"] if name.partition(".")[0] == "looseends"]
    assert ours and not [
        name for name in found["brought"] if name.partition(".")[0] in ("looseends_daemon", "looseends_dashboard")
    ]
