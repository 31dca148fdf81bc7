"""A storm of failures: one incident for each type, few notices, and no type hides another."""

from __future__ import annotations

import json
from typing import Any

from looseends_daemon.core.incidents import AlertRules, EndpointRule

OPS = EndpointRule(name="ops", fingerprint="1")


def failures(ground: Any, name: str, count: int) -> None:
    """So many runs of one name that fail for good, in one batch."""
    error = {"type": "TimeoutError", "message": "m"}
    ids = [f"00000000-0000-8000-8000-{ground.number + n:012x}" for n in range(count)]
    ground.number += count
    ground.tell(*({"type": "failed", "task": task, "name": name, "error": error} for task in ids))


def test_a_minute_of_failures_is_two_notices_and_a_rare_type_is_named_as_soon_as_any(make_ground: Any) -> None:
    ground = make_ground(AlertRules(endpoints=(OPS,)))
    began, rare_at = ground.now, None
    for second in range(60):
        failures(ground, "mail.send", 20)
        if second == 30:
            failures(ground, "audit.write", 1)
            rare_at = ground.now
        ground.after(1)
        ground.deliver()
    ground.after(3)
    told = [(n.type.rpartition(".")[2], json.loads(n.body)["data"]["incident"], n.created_at) for n in ground.notices()]
    assert rare_at is not None
    named = {incident["labels"]["name"]: at for kind, incident, at in told if kind == "opened"}
    assert (named["mail.send"] - began) / 1e9 <= 2, "group_wait is a second, and the detector is asked every second here"
    assert (named["audit.write"] - rare_at) / 1e9 <= 2
    assert [kind for kind, _, _ in told] == ["opened", "opened", "updated"]
    assert told[-1][1]["counts"]["open"] == 1_200
    assert {one.name: one.counts.open for one in ground.incidents()} == {"mail.send": 1_200, "audit.write": 1}


def test_a_storm_that_is_acknowledged_says_nothing_until_it_has_doubled(make_ground: Any) -> None:
    ground = make_ground(AlertRules(endpoints=(OPS,)))
    failures(ground, "mail.send", 500)
    ground.after(0)
    ground.after(1)
    ground.deliver()
    ground.acknowledge()
    ground.deliver()
    for _ in range(4):
        failures(ground, "mail.send", 100)
        ground.after(61)
    assert ground.types() == ["opened", "acknowledged"]
    failures(ground, "mail.send", 100)
    ground.after(0)
    assert ground.types() == ["opened", "acknowledged", "updated"]
