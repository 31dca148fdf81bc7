"""The shipped rules in a real Prometheus, scraping a real daemon, alerting through a real Alertmanager."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from watchers import Watched, fetch

from harness import ROOT, Processes, free_port, wait_until

RULES = ROOT / "examples/prometheus/looseends.rules.yml"
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus")
needs_both = pytest.mark.skipif(
    shutil.which("prometheus") is None or ALERTMANAGER is None,
    reason="Prometheus or Alertmanager is missing: apt-get install prometheus prometheus-alertmanager",
)


def promtool(*args: str | Path, said: str = "") -> str:
    done = subprocess.run(["promtool", *map(str, args)], input=said, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_rules_and_the_scrape_configuration() -> None:
    assert re.search(r"SUCCESS: \d+ rules found", promtool("check", "rules", RULES))
    promtool("check", "config", RULES.with_name("prometheus.yml"))


@needs_promtool
def test_promtool_sees_a_planted_fault(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(RULES.read_text().replace("> 0.1", "> > 0.1"))
    with pytest.raises(AssertionError):
        promtool("check", "rules", broken)


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_metrics(state_dir: Path, processes: Processes) -> None:
    daemon = Watched(state_dir, processes)
    task = str(uuid.uuid4())
    daemon.tell({"type": "started", "task": task}, {"type": "failed", "task": task, "error": {"type": "E", "message": "m"}})
    assert promtool("check", "metrics", said=fetch(f"{daemon.url}/metrics")[1]) == ""


class Pager:
    """Where Alertmanager sends its webhooks."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        pager = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                pager.alerts += body["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def has(self, status: str, alert: str) -> bool:
        return any(one["status"] == status and one["labels"]["alertname"] == alert for one in self.alerts)


@pytest.fixture
def pager() -> Iterator[Pager]:
    made = Pager()
    yield made
    made.server.shutdown()
    made.server.server_close()


def start_alertmanager(folder: Path, processes: Processes, pager: Pager) -> str:
    config, port = folder / "alertmanager.yml", free_port()
    route = {"receiver": "pager", "group_wait": "0s", "group_interval": "1s", "group_by": ["..."]}
    config.write_text(json.dumps({"route": route, "receivers": [{"name": "pager", "webhook_configs": [{"url": pager.url}]}]}))
    listen = (f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=")
    assert ALERTMANAGER is not None
    processes.start(ALERTMANAGER, f"--config.file={config}", f"--storage.path={folder / 'am'}", *listen)
    return f"127.0.0.1:{port}"


def start_prometheus(folder: Path, processes: Processes, target: str, alertmanager: str) -> str:
    """The shipped rules with shorter patience: nobody can wait 5 minutes in a test, and nothing else of them is changed."""
    rules, config, port = folder / "rules.yml", folder / "prometheus.yml", free_port()
    rules.write_text(re.sub(r"for: \d+m", "for: 1s", RULES.read_text()))
    document = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(rules)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [{"job_name": "looseends", "static_configs": [{"targets": [target]}]}],
    }
    config.write_text(json.dumps(document))
    where = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}")
    processes.start("prometheus", *where)
    return f"http://127.0.0.1:{port}"


def ask(prometheus: str, query: str) -> float | None:
    """The value of the one series of a query; None: there is none, or nobody to ask yet."""
    try:
        _, text = fetch(f"{prometheus}/api/v1/query?query={quote(query)}")
    except OSError:
        return None
    found = json.loads(text)["data"]["result"]
    return float(found[0]["value"][1]) if found else None


@needs_both
def test_the_gap_alert_reaches_an_alertmanager_and_stays_until_the_lost_work_is_settled(
    state_dir: Path, processes: Processes, pager: Pager
) -> None:
    daemon = Watched(state_dir, processes)
    alertmanager = start_alertmanager(state_dir, processes, pager)
    prometheus = start_prometheus(state_dir, processes, f"127.0.0.1:{daemon.port}", alertmanager)
    lost, firing = str(uuid.uuid4()), 'ALERTS{alertname="LooseEndOpen",alertstate="firing"}'
    daemon.tell({"type": "started", "task": lost}, {"type": "dropped", "task": lost, "reason": "collected"})
    wait_until(lambda: pager.has("firing", "LooseEndOpen"), "the alert to reach the pager", 60.0)
    (alert,) = [one for one in pager.alerts if one["labels"]["alertname"] == "LooseEndOpen"][:1]
    assert alert["labels"].items() >= {"service": "shop", "name": "mail.send", "environment": "production"}.items()
    assert ask(prometheus, "looseends_task_started_total") == 1

    daemon.process.kill()
    wait_until(lambda: pager.has("firing", "LooseEndsDown"), "the alert that nobody watches", 60.0)
    daemon.start()
    done = str(uuid.uuid4())
    daemon.tell({"type": "started", "task": done}, {"type": "finished", "task": done})
    wait_until(lambda: ask(prometheus, "looseends_task_started_total") == 2, "the scrape after the restart", 60.0)
    assert ask(prometheus, "resets(looseends_task_started_total[10m])") == 0, "a restart reset a counter"
    wait_until(lambda: pager.has("resolved", "LooseEndsDown"), "the daemon to be seen again", 60.0)
    wait_until(lambda: ask(prometheus, firing) == 1, "the alert to stand, whatever else succeeded", 30.0)
    assert ask(prometheus, "looseends:task_started_minus_finished") == 1
    assert not pager.has("resolved", "LooseEndOpen"), "it was taken back while the daemon was down"

    daemon.tell({"type": "finished", "task": lost})
    wait_until(lambda: pager.has("resolved", "LooseEndOpen"), "the alert to end with the settlement", 60.0)
    assert ask(prometheus, "sum(looseends_loose_end_open)") == 0


def names_in(text: str) -> set[str]:
    """Metrics that an expression or a document names, without what histograms add."""
    found = set(re.findall(r"\blooseends_[a-z_]+[a-z]\b", text)) - {"looseends_dashboard", "looseends_daemon"}
    return {re.sub(r"(_seconds)_(bucket|sum|count)$", r"\1", name) for name in found}


def all_names(expositions: str) -> set[str]:
    return set(re.findall(r"^# TYPE (looseends_\w+)", expositions, re.M))


def test_rules_dashboard_and_document_name_the_metrics_that_there_are(state_dir: Path, processes: Processes) -> None:
    daemon = Watched(state_dir, processes)
    there = all_names(fetch(f"{daemon.url}/metrics")[1])
    assert len(there) > 20
    dashboard = json.loads((ROOT / "examples/grafana/looseends.json").read_text())
    expressions = "\n".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    assert names_in(expressions) <= there, names_in(expressions) - there
    assert names_in(RULES.read_text()) <= there, names_in(RULES.read_text()) - there
    document = (ROOT / "docs/metrics.md").read_text()
    assert there <= names_in(document), f"docs/metrics.md does not name {', '.join(there - names_in(document))}"
    assert names_in(document) <= there, f"docs/metrics.md names what is not there: {names_in(document) - there}"


@needs_both
def test_every_expression_of_the_dashboard_is_understood_by_prometheus(state_dir: Path, processes: Processes) -> None:
    daemon = Watched(state_dir, processes)
    prometheus = start_prometheus(state_dir, processes, f"127.0.0.1:{daemon.port}", "127.0.0.1:9")
    wait_until(lambda: ask(prometheus, "looseends_ready") == 1, "the first scrape", 60.0)
    dashboard = json.loads((ROOT / "examples/grafana/looseends.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            query = re.sub(r"\$(environment|service|name)", ".*", target["expr"].replace("$__rate_interval", "1m"))
            status, body = fetch(f"{prometheus}/api/v1/query?query={quote(query)}")
            assert status == 200 and json.loads(body)["status"] == "success", target["expr"]
