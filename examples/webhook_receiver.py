"""A receiver of looseends' webhooks: it verifies the signature, prints what happened, and answers 204.

    python -m pip install standardwebhooks
    python examples/webhook_receiver.py --secret whsec_... [--port 9000] [--append notices.jsonl]

The check is the `standardwebhooks` package's own, nothing of looseends: any receiver that can verify a Standard Webhook
can verify this one. A notice is delivered at least once, so a repeated `webhook-id` is answered and not acted on twice.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

try:
    from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError
except ImportError:
    sys.exit("this receiver verifies with the standardwebhooks package: python -m pip install standardwebhooks")

BODY_BYTES_MAX = 64 << 10
IDS_MAX = 10_000


class Seen:
    """The newest IDS_MAX webhook ids; `first` is true once per id."""

    def __init__(self) -> None:
        self._ids: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._lock = threading.Lock()

    def first(self, webhook_id: str) -> bool:
        """Whether this id is new; it is remembered."""
        with self._lock:
            new = webhook_id not in self._ids
            self._ids[webhook_id] = None
            if len(self._ids) > IDS_MAX:
                self._ids.popitem(last=False)
            return new


class Receiver(BaseHTTPRequestHandler):
    """Answers POST: 204 taken, 401 not signed by our sender, 411 and 413 of no known or too great a length."""

    webhook: Webhook
    seen: Seen
    append: str | None = None
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """One notice."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413 if length.isdecimal() else 411)
        body = self.rfile.read(int(length))
        try:
            notice = self.webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except (WebhookVerificationError, ValueError) as error:
            say(f"refused: {error}")
            return self.answer(401)
        if self.seen.first(self.headers["webhook-id"]):
            self.take(notice)
        return self.answer(204)

    def take(self, notice: dict[str, Any]) -> None:
        """Here a real receiver would page somebody."""
        incident = notice.get("data", {}).get("incident") or {}
        kind = str(notice.get("type", "")).removeprefix("looseends.")
        say(f"{kind}: {incident.get('title') or 'a test'}  {where(incident)}".rstrip())
        for task in notice.get("data", {}).get("tasks", []):
            say(f"    {' '.join(filter(None, (task.get('name'), task.get('key'))))}: {told(task)}")
        if self.append is not None:
            line = json.dumps({"id": self.headers["webhook-id"], "notice": notice}) + "\n"
            with open(self.append, "a", encoding="utf-8") as file:
                file.write(line)

    def answer(self, status: int) -> None:
        """A status and no body."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """The access log of the standard library says nothing that `say` does not."""


def where(incident: dict[str, Any]) -> str:
    """Where to look: a link, or without an external_url the command line that reads the incident, and on which host."""
    if incident.get("url") or not incident.get("command"):
        return str(incident.get("url") or "")
    return f"on {incident.get('host')}: {incident['command']}"


def told(task: dict[str, Any]) -> str:
    """What is wrong with a task, and how it was settled if it was. Nothing is said twice: a reason may name its problem."""
    problem = str(task.get("verdict") or ("failed" if task.get("state") == "failed" else "")).replace("_", " ")
    reason = str(task.get("reason") or "")
    words = reason if reason.startswith(problem) else f"{problem}, {reason}" if reason else problem
    settled = str(task.get("settled") or "").replace("_", " ")
    return f"settled, {settled}{f' (was: {words})' if words else ''}" if settled else words


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


def main() -> int:
    """Listen until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Receive and verify webhooks of looseends.")
    parser.add_argument("--secret", default=os.environ.get("WEBHOOK_SECRET"), help="whsec_..., or WEBHOOK_SECRET")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one (default 9000)")
    parser.add_argument("--append", metavar="FILE", help="add every notice to this file, one JSON line each")
    options = parser.parse_args()
    if not options.secret:
        parser.error("a secret is needed: --secret whsec_... or WEBHOOK_SECRET, the one of your [[endpoint]]")
    try:
        Receiver.webhook = Webhook(options.secret)
    except (EmptyWebhookSecretError, ValueError) as error:
        parser.error(f"--secret must be whsec_ and base64, as in your [[endpoint]]: {error}")
    Receiver.seen, Receiver.append = Seen(), options.append
    try:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), Receiver)
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on 127.0.0.1:{options.port}: {error}; choose another --port")
    try:
        say(f"listening on http://127.0.0.1:{server.server_port}/")
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        say("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
