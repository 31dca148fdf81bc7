"""Work that nobody can replay needs a way out: a person dismisses it with a note, and its incident resolves."""

from __future__ import annotations

import json
from typing import Any

from town import Town


def test_a_dismissed_loose_end_resolves_its_incident_and_the_receiver_is_told(town: Town) -> None:
    town.start_receiver()
    town.start_daemon()
    json_type = {"Content-Type": "application/json"}
    error = {"type": "DiskFull", "message": "no space left"}
    events = [
        {"type": "started", "task": "backup-7", "service": "cron", "name": "backup"},
        {"type": "failed", "task": "backup-7", "service": "cron", "error": error},
    ]
    status, said = town.http(town.port, "POST", "/api/v1/events", json.dumps(events), json_type)
    assert status == 200, said
    opened = town.notice(lambda one: one["type"].endswith(".opened"), "a notice of the failure")
    task = opened["data"]["tasks"][0]["id"]

    status, dismissed = _dismiss(town, task, "the disk was replaced")
    assert (status, dismissed["settled"], dismissed["loose"]) == (200, "dismissed", False)
    resolved = town.notice(lambda one: one["type"].endswith(".resolved"), "a notice of the end")
    incident = resolved["data"]["incident"]
    assert (incident["resolution"], incident["title"]) == ("dismissed", "Settled: backup of cron failed; dismissed")
    last = town.api(f"/tasks/{task}/history")["items"][-1]
    assert (last["what"], last["reason"]) == ("dismissed", "the disk was replaced")

    status, refused = _dismiss(town, task, "once more")
    assert status == 409 and "settled already" in refused["detail"]


def _dismiss(town: Town, task: str, note: str) -> tuple[int, Any]:
    headers = {
        "Authorization": f"Bearer {town.token}",
        "Idempotency-Key": note.replace(" ", "-"),
        "Content-Type": "application/json",
    }
    status, body = town.http(town.port, "POST", f"/api/v1/tasks/{task}/dismiss", json.dumps({"note": note}), headers)
    return status, json.loads(body)
