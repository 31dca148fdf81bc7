"""The main job on real processes: work is lost in four ways, each gets its verdict and its notice, and nothing else does."""

from __future__ import annotations

import re
import time

from town import Town

from harness import wait_until


def test_four_ways_of_losing_work_are_found_named_and_told(town: Town) -> None:
    town.start_receiver()
    town.start_daemon()
    town.start_shop()

    town.register("well@example.com")
    wait_until(lambda: len(town.tasks("state:succeeded")) == 3, "three steps to end well")

    # 1 and 4: the mail raises, so the audit row and the partner are scheduled and never start.
    ada = "ada+mail-raises@example.com"
    town.register(ada)
    notice, failed = town.told(None, "mail.send_welcome", ada)
    assert notice["type"] == "looseends.incident.opened"
    assert failed["reason"].startswith("ConnectionError")
    for name in ("audit.write_row", "partner.notify"):
        notice, dropped = town.told("never_started", name, ada)
        assert notice["data"]["incident"]["severity"] == "critical"
        assert "an earlier background task of the same response raised" in dropped["reason"]

    # 2: the partner's answer never comes, past the deadline of one second.
    bob = "bob+partner-hangs@example.com"
    town.register(bob)
    _, stuck = town.told("stuck", "partner.notify", bob)
    assert stuck["reason"].startswith("stuck in fastapi_service.py:")
    assert stuck["reason"].endswith("no end within 1 s; its process is alive")

    # 3: the process is killed in mid-task; what it had scheduled behind that task is lost with it.
    eve = "eve+mail-slow@example.com"
    town.register(eve)
    wait_until(lambda: town.tasks(f"state:running key:{eve}"), "the slow mail to begin")
    killed = town.kill_shop()
    notice, lost = town.told("lost", "mail.send_welcome", eve)
    print(f"SIGKILL to verified webhook: {time.monotonic() - killed:.2f} s (bar 2.5 s)")
    assert notice["type"] == "looseends.incident.opened"
    assert notice["data"]["incident"]["labels"]["instance"] is not None
    assert re.search(r"killed|crashed", lost["reason"])
    assert lost["replayable"] is True, "its author allowed it; that nobody who could run it is alive may change"

    assert_nothing_else_is_told(town)


def assert_nothing_else_is_told(town: Town) -> None:
    """Every notice is about a loose end that was planted; the ledger adds up."""
    loose = {(task["name"], task["key"], task["verdict"] or task["state"]) for task in town.tasks("is:loose")}
    planted = {
        ("mail.send_welcome", "ada+mail-raises@example.com", "failed"),
        ("audit.write_row", "ada+mail-raises@example.com", "never_started"),
        ("partner.notify", "ada+mail-raises@example.com", "never_started"),
        ("partner.notify", "bob+partner-hangs@example.com", "lost"),
        ("mail.send_welcome", "eve+mail-slow@example.com", "lost"),
        ("audit.write_row", "eve+mail-slow@example.com", "lost"),
        ("partner.notify", "eve+mail-slow@example.com", "lost"),
    }
    assert loose == planted
    told = {task["key"] for notice in town.notices() for task in notice["data"]["tasks"]}
    assert "well@example.com" not in told
    ledger = town.api("/ledger")
    terms = [ledger[term] for term in ("succeeded", "failed", "cancelled", "in_time", "gap")]
    assert ledger["tasks"] == sum(terms) == 12
    assert ledger["loose"] == len(planted)
    assert ledger["in_time"] == 0
