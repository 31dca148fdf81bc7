"""A collector that is not ours, in another language: npm's @elastic/mockotlpserver decodes what the daemon sends.

It is looked for in .venv/npm, where .ci/run installs it; where it is not, the test says how to get it.
"""

from __future__ import annotations

import base64
import json
import queue
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from harness import ROOT, Processes
from looseends.wire import NS

NPM = ROOT / ".venv" / "npm"
PACKAGE = "@elastic/mockotlpserver"
SERVE = f"""
const {{ MockOtlpServer }} = require("{PACKAGE}");
const plain = (_, value) => (typeof value === "bigint" ? String(value) : value);
const say = (kind) => (what) => console.log(kind + " " + JSON.stringify(what, plain));
const server = new MockOtlpServer({{
  logLevel: "fatal", services: ["http"], httpHostname: "127.0.0.1", httpPort: 0,
  onTrace: say("trace"), onMetrics: say("metrics"), onLogs: say("logs"),
}});
server.start().then(() => console.log("url " + JSON.stringify(server.httpUrl.href)));
"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver:
    """The server in a process of its own; what it decoded, by kind."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["node", "-e", SERVE], cwd=NPM, stdout=subprocess.PIPE, text=True)
        self.got: dict[str, list[Any]] = {"trace": [], "metrics": [], "logs": []}
        urls: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(urls,), daemon=True)
        self.reader.start()
        self.url = urls.get(timeout=30).rstrip("/")

    def _read(self, urls: queue.Queue[str]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, _, told = line.partition(" ")
            if kind == "url":
                urls.put(json.loads(told))
            elif kind in self.got:
                self.got[kind].append(json.loads(told))

    def spans(self) -> list[dict[str, Any]]:
        """Every span, with its attributes and those of its resource as plain dicts."""
        return list(records(self.got["trace"], "resourceSpans", "scopeSpans", "spans"))

    def logs(self) -> list[dict[str, Any]]:
        return list(records(self.got["logs"], "resourceLogs", "scopeLogs", "logRecords"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def records(messages: list[Any], outer: str, middle: str, inner: str) -> Iterator[dict[str, Any]]:
    for message in list(messages):
        for resource in message[outer]:
            for scope in resource[middle]:
                for record in scope[inner]:
                    of = {"resource": plain(resource["resource"]["attributes"])}
                    ids = {name: hexed(value) for name, value in record.items() if name.endswith("Id")}
                    yield {**record, **ids, "attributes": plain(record["attributes"]), **of}


def hexed(told: str) -> str:
    """An id as the conventions write it; it comes as protobuf's JSON has bytes."""
    return base64.b64decode(told).hex()


def plain(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: next(iter(pair["value"].values())) for pair in pairs}


@pytest.fixture
def second() -> Iterator[Receiver]:
    if shutil.which("node") is None or not (NPM / "node_modules" / PACKAGE).is_dir():
        pytest.skip(f"needs node and: npm install --prefix .venv/npm {PACKAGE}")
    made = Receiver()
    yield made
    made.close()


def event(kind: str, task: str, at: int, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "task": task, "name": "mail.send", "at": at, **fields}


async def test_it_reads_the_same_ids_times_links_and_resources(open_house: Any, second: Receiver) -> None:
    house = await open_house(f'[otel]\nendpoint = "{second.url}"\n')
    task, failed, begun = str(uuid.uuid4()), str(uuid.uuid4()), time.time_ns() - 60 * NS
    await house.tell(
        event("started", task, begun, trace_id=TRACE, span_id=SPAN, args={"card": "4111"}),
        event("finished", task, begun + 5 * NS, duration=5.0),
        event("started", failed, begun + 1, parent=task),
        event("failed", failed, begun + 7, error={"type": "SMTPError", "message": "mailbox full", "traceback": "Traceback ..."}),
    )
    await house.until(lambda: len(second.spans()) == 2 and second.logs(), "two spans and a log record")
    by = {span["attributes"]["looseends.task.id"]: span for span in second.spans()}
    good, bad = by[task], by[failed]
    assert (good["traceId"], good["parentSpanId"], good["name"]) == (TRACE, SPAN, "run mail.send")
    assert (int(good["startTimeUnixNano"]), int(good["endTimeUnixNano"])) == (begun, begun + 5 * NS)
    assert (bad["traceId"], bad["parentSpanId"]) == (TRACE, good["spanId"])
    assert bad["status"]["message"] == "mailbox full" and "ERROR" in str(bad["status"]["code"])
    assert good["resource"]["service.name"] == "shop-web" and good["resource"]["service.instance.id"] == "i-1"
    (log,) = second.logs()
    assert (log["traceId"], log["spanId"]) == (TRACE, bad["spanId"])
    assert log["attributes"]["exception.stacktrace"] == "Traceback ..."
    await house.until(lambda: second.got["metrics"], "the metrics")
    names = {m["name"] for r in second.got["metrics"][0]["resourceMetrics"] for s in r["scopeMetrics"] for m in s["metrics"]}
    assert "looseends.build_info" in names
    assert "4111" not in json.dumps(second.got)


SHOP = """
import looseends, threading
looseends.init(service="shop-web", environment="staging")

@looseends.task(name="mail.send", replay=True)
def send(order):
    if not looseends.current().is_replay:
        raise ConnectionError("no route")

try:
    send(7)
except ConnectionError:
    print("failed", flush=True)
threading.Event().wait()
"""


async def test_a_replay_is_a_trace_of_its_own_with_a_link_to_what_it_runs_again(
    open_house: Any, second: Receiver, processes: Processes
) -> None:
    from looseends_daemon.store import access

    house = await open_house(f'[otel]\nendpoint = "{second.url}"\nmetrics = false\n')
    made = {
        role: await house.daemon.database.write(
            lambda conn, role=role, service=service: access.create_token(
                conn, role=role, service=service, name=role, now=time.time_ns()
            )
        )
        for role, service in (("ingest", "shop-web"), ("operator", None))
    }
    processes.start(sys.executable, "-c", SHOP, env={"LOOSEENDS_URL": house.url, "LOOSEENDS_TOKEN": str(made["ingest"])})
    await house.until(second.spans, "the failed task's span")
    (old,) = second.spans()
    told = ".".join(str(made["operator"]).split(".")[:2])
    headers = {"Authorization": f"Bearer {told}", "Idempotency-Key": uuid.uuid4().hex}
    address = f"{house.url}/api/v1/tasks/{old['attributes']['looseends.task.id']}/replay"
    async with house.http.post(address, headers=headers, json={}) as answer:
        assert answer.status == 202, await answer.text()
    await house.until(lambda: len(second.spans()) == 2, "the replay's span")
    new = second.spans()[1]
    assert new["attributes"]["looseends.task.outcome"] == "succeeded" and new["traceId"] != old["traceId"]
    (link,) = new["links"]
    assert (hexed(link["traceId"]), hexed(link["spanId"])) == (old["traceId"], old["spanId"])
    assert plain(link["attributes"]) == {"looseends.link.type": "replay_of"}
