"""Receivers that are not ours: published verifiers, a CloudEvents parser, Debian's Alertmanager."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloudevents.v1.http import from_http
from standardwebhooks import Webhook as Verifier

from harness import ROOT, free_port, wait_until

NPM = ROOT / ".venv" / "npm"
NEW = "whsec_" + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
OLD = "whsec_" + "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
CHECK = """
const { Webhook } = require("standardwebhooks");
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const out = {};
for (const key of given.keys) {
  try { out[key] = new Webhook(key).verify(given.body, given.headers).id; } catch (error) { out[key] = null; }
}
console.log(JSON.stringify(out));
"""


def signed(url: str) -> str:
    return f'[[endpoint]]\nname = "ops"\nurl = "{url}"\nsecrets = ["{NEW}", "{OLD}"]\n'


def verified_by_node(keys: list[str], body: str, headers: dict[str, str]) -> dict[str, str | None]:
    """For each key the id that the npm package verified, or None."""
    told = json.dumps({"keys": keys, "body": body, "headers": headers})
    done = subprocess.run(["node", "-e", CHECK], cwd=NPM, input=told, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.fixture
async def request_of(living: Any, receiver: Any) -> tuple[dict[str, str], bytes]:
    """The headers and body of one real notice."""
    daemon = await living(signed(receiver.url))
    await daemon.fail("mail.send_receipt", key="order-7")
    await daemon.until(lambda: daemon.notices(state="delivered"))
    found: tuple[dict[str, str], bytes] = receiver.requests[0]
    return found


async def test_the_same_request_verifies_with_the_package_from_pypi(request_of: Any) -> None:
    headers, body = request_of
    for key in (NEW, OLD):
        assert Verifier(key).verify(body.decode(), headers)["id"] == headers["webhook-id"]


async def test_and_with_the_package_from_npm(request_of: Any) -> None:
    if shutil.which("node") is None or not (NPM / "node_modules" / "standardwebhooks").is_dir():
        pytest.skip("needs node and: npm install --prefix .venv/npm standardwebhooks")
    headers, body = request_of
    wrong = "whsec_" + "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="
    found = verified_by_node([NEW, OLD, wrong], body.decode(), headers)
    assert found == {NEW: headers["webhook-id"], OLD: headers["webhook-id"], wrong: None}
    tampered = body.decode().replace("order-7", "order-8")
    assert verified_by_node([NEW], tampered, headers) == {NEW: None}


async def test_and_parses_as_a_cloudevent(request_of: Any) -> None:
    headers, body = request_of
    event = from_http({"content-type": "application/cloudevents+json"}, body)
    assert event["id"] == headers["webhook-id"]
    assert event["type"] == "looseends.incident.opened"
    assert event["source"] == "/looseends/test"
    assert event["specversion"] == "1.0"
    assert event.data["incident"]["id"] == event["subject"]


# --- Alertmanager -------------------------------------------------------------------------------------------------

CONFIG = """
route:
  receiver: sink
  group_by: ['...']
  group_wait: 100ms
  group_interval: 500ms
  repeat_interval: 1h
receivers:
  - name: sink
    webhook_configs: [{{url: '{url}', send_resolved: true}}]
"""


class Alerts:
    """A real Alertmanager: what it holds."""

    def __init__(self, url: str) -> None:
        self.url = url

    def all(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def names(self) -> list[str]:
        return sorted(one["labels"]["alertname"] for one in self.all())


@pytest.fixture
def make_alertmanager(processes: Any, tmp_path: Path) -> Iterator[Any]:
    """Start Debian's Alertmanager, which tells this address of what it hears."""
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("needs Debian's prometheus-alertmanager: apt-get install prometheus-alertmanager")

    def make(url: str) -> Alerts:
        port = free_port()
        (tmp_path / "am.yml").write_text(CONFIG.format(url=url))
        processes.start(
            program,
            *(f"--config.file={tmp_path}/am.yml", f"--storage.path={tmp_path}/am", f"--web.listen-address=127.0.0.1:{port}"),
            "--cluster.listen-address=",  # else it listens on every interface
        )
        alerts = Alerts(f"http://127.0.0.1:{port}")

        def ready() -> bool:
            try:
                return alerts.all() == []
            except OSError:
                return False

        wait_until(ready, "Alertmanager to answer")
        return alerts

    yield make


def alert_table(url: str) -> str:
    return f'[[endpoint]]\nname = "am"\nkind = "alertmanager"\nurl = "{url}"\n'


def refresher(daemon: Any) -> Any:
    """The loop that sends again what stands."""
    return next(loop for loop in daemon.daemon.loops if loop.name == "refresher am")


async def test_alertmanager_takes_the_push_tells_equal_ones_once_and_resolves(
    living: Any, make_alertmanager: Any, receiver: Any
) -> None:
    alerts = make_alertmanager(receiver.url)
    daemon = await living(alert_table(alerts.url))
    task = await daemon.fail("mail.send_receipt", key="order-7")
    await daemon.until(lambda: daemon.notices(state="delivered"))
    [alert] = alerts.all()
    assert alert["labels"] == {
        "alertname": "LooseEndsFailed",
        "service": "shop-web",
        "name": "mail.send_receipt",
        "environment": "production",
        "problem": "failed",
        "severity": "warning",
        "looseends": "test",
    }
    assert alert["annotations"]["summary"].startswith("WARNING: mail.send_receipt of shop-web failed")
    assert "order-7" in alert["annotations"]["description"]
    assert (alert["annotations"]["open"], alert["annotations"]["total"]) == ("1", "1")
    updated = alert["updatedAt"]

    refresher(daemon).wake()

    async def sent_again() -> Any:
        return alerts.all()[0]["updatedAt"] > updated

    await daemon.until(sent_again)
    assert len(alerts.all()) == 1
    await receiver.arrived.wait()

    await daemon.ask("POST", f"/api/v1/tasks/{task}/dismiss", {"note": "known"})
    await daemon.until(lambda: daemon.notices(type="looseends.incident.resolved", state="delivered"))
    assert alerts.all() == []  # this list holds what is active

    async def told_of_the_end() -> Any:
        return [body for _, body in receiver.requests if json.loads(body)["status"] == "resolved"]

    await daemon.until(told_of_the_end)
    statuses = [json.loads(body)["status"] for _, body in receiver.requests]
    assert statuses == ["firing", "resolved"], "the push that was repeated was not told again"


async def test_an_incident_that_becomes_worse_leaves_no_alert_of_its_old_name(
    living: Any, make_alertmanager: Any, receiver: Any
) -> None:
    alerts = make_alertmanager(receiver.url)
    daemon = await living(alert_table(alerts.url), alerts='group_wait = "0s"\ngroup_interval = "1s"')
    await daemon.fail("mail.send")
    await daemon.until(lambda: daemon.notices(state="delivered"))
    assert alerts.names() == ["LooseEndsFailed"]
    events = [{"type": "started", "task": "stuck-1", "name": "mail.send", "service": "shop-web", "deadline": 0.1}]
    await daemon.ask("POST", "/api/v1/events", {"events": events})
    await daemon.until(lambda: daemon.notices(type="looseends.incident.updated", state="delivered"))
    assert alerts.names() == ["LooseEndsStuck"]


async def test_a_test_of_the_endpoint_is_an_alert_that_ends_by_itself(living: Any, make_alertmanager: Any, receiver: Any) -> None:
    alerts = make_alertmanager(receiver.url)
    daemon = await living(alert_table(alerts.url))
    _, notice = await daemon.ask("POST", "/api/v1/endpoints/am/test")
    await daemon.until(lambda: daemon.notices(id=notice["id"], state="delivered"))
    [alert] = alerts.all()
    assert alert["labels"] == {"alertname": "LooseEndsTest", "endpoint": "am", "looseends": "test"}
