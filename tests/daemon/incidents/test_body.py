"""What a notice says: the contract's shape, exact counts, links, and what may not leave the machine."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest

from harness import ROOT
from looseends.wire import NS
from looseends_daemon.core.delivery import BODY_BYTES_MAX
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.store.instances import put_functions

OPEN = EndpointRule(name="ops", fingerprint="1")
FRANK = EndpointRule(name="frank", fingerprint="1", include_args=True)


def event(ground: Any, endpoint: str = "ops", n: int = -1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ground.notices(endpoint)[n].body)
    return found


@pytest.fixture
def frank(make_ground: Any) -> Any:
    """Two endpoints: one that may see arguments, and one that may not."""
    return make_ground(AlertRules(endpoints=(OPEN, FRANK), instance="prod-eu-1", command="curl http://localhost"))


def test_a_notice_has_the_shape_of_the_contract(ground: Any) -> None:
    task = ground.start(key="order-7", args={"order_id": 7}, trace_id="0af7")
    ground.later(2)
    ground.kill()
    ground.after(0)
    ground.after(1)
    found = event(ground)
    [notice] = ground.notices()
    data = found.pop("data")
    assert found == {
        "specversion": "1.0",
        "id": notice.id,
        "source": "/looseends/prod-eu-1",
        "type": "looseends.incident.opened",
        "subject": ground.incident().id,
        "time": found["time"],
        "timestamp": found["time"],
        "datacontenttype": "application/json",
    }
    incident, [sample] = data["incident"], data["tasks"]
    assert (data["schema"], data["sequence"], data["tasks_truncated"]) == (1, 1, 0)
    assert incident["labels"] == {
        "service": "shop-web",
        "name": None,
        "instance": ground.instance["id"],
        "environment": "production",
    }
    assert (incident["state"], incident["reason"], incident["problem"]) == ("open", "first_notification", "lost")
    assert incident["counts"] == {
        "open": 1,
        "total": 1,
        "settled": {"finished_late": 0, "retried": 0, "replayed": 0, "dismissed": 0},
    }
    assert {k: incident[k] for k in ("acknowledged", "resolved_at", "resolution")} == dict.fromkeys(
        ("acknowledged", "resolved_at", "resolution")
    )
    assert incident["url"] == f"https://ends.example.org/incidents/{incident['id']}"
    assert sample["url"] == f"https://ends.example.org/tasks/{task}"
    assert (sample["id"], sample["verdict"], sample["reason"]) == (task, "lost", "process killed")
    assert (sample["key"], sample["attempt"], sample["trace_id"], sample["replay_of"]) == ("order-7", 1, "0af7", None)
    assert sample["instance"] == {
        "id": ground.instance["id"],
        "host": "web-3",
        "pid": 4242,
        "release": None,
        "alive": False,
    }
    assert sample["replayable"] is False, "nobody registers the function"
    assert "args" not in sample


def offer(ground: Any, name: str = "mail.send_receipt", proven: int = 1) -> None:
    """The service's newest instance registers a function."""
    no = ground.conn.execute("SELECT max(no) FROM instance").fetchone()[0]
    ground.conn.execute("UPDATE instance SET proven = ? WHERE no = ?", (proven, no))
    function = {"name": name, "signature": None, "code": None, "replay": "yes", "caution": None, "via": None}
    put_functions(ground.conn, no, [function])


@pytest.mark.parametrize(
    ("fields", "registered", "proven", "replayable"),
    [
        ({"args": {"order_id": 7}}, "mail.send_receipt", 1, True),
        ({"args": {"order_id": 7}}, "audit.write", 1, False),
        ({"args": {"order_id": 7}}, "mail.send_receipt", 0, False),
        ({}, "mail.send_receipt", 1, False),
        ({"args": {"a": 1}, "not_replayable_because": "it was cut"}, "mail.send_receipt", 1, False),
    ],
)
def test_a_notice_calls_work_replayable_that_its_author_allowed_although_its_process_just_died(
    ground: Any, fields: dict[str, Any], registered: str, proven: int, replayable: bool
) -> None:
    offer(ground, registered, proven)
    ground.start(**fields)
    ground.kill()
    ground.after(0)
    ground.after(1)
    [sample] = event(ground)["data"]["tasks"]
    assert sample["replayable"] is replayable


def test_a_resolved_notice_says_what_became_of_it_and_not_that_it_still_is(ground: Any) -> None:
    task = ground.start()
    ground.after(30)
    ground.after(1)
    ground.deliver()
    ground.finish(task)
    ground.after(1)
    data = event(ground)["data"]
    assert data["incident"]["title"] == "Settled: mail.send_receipt of shop-web ended late (was stuck)"
    assert [(task["verdict"], task["settled"]) for task in data["tasks"]] == [(None, "finished_late")]


def test_the_notice_that_nothing_was_wrong_says_of_which_tasks(ground: Any) -> None:
    tasks = [ground.start(), ground.start()]
    ground.after(30)
    ground.after(1)
    ground.deliver()
    for task in tasks:
        ground.tell({"type": "finished", "task": task, "at": ground.now - 5 * NS})
    ground.after(1)
    data = event(ground)["data"]
    assert (data["incident"]["resolution"], data["incident"]["counts"]["total"]) == ("withdrawn", 0)
    assert [task["id"] for task in data["tasks"]] == tasks and data["tasks_truncated"] == 0
    for task in data["tasks"]:
        assert (task["verdict"], task["settled"]) == (None, None)
        assert task["reason"].startswith("it had ended in time, at ") and task["reason"].endswith("; that was told late")


def test_the_reason_beside_a_verdict_does_not_say_the_verdict_again(ground: Any) -> None:
    ground.number += 1
    task = str(uuid.UUID(int=ground.number, version=4))
    ground.tell({"type": "scheduled", "task": task, "name": "mail.send_receipt"})
    ground.tell({"type": "dropped", "task": task, "reason": "request_failed"})
    ground.after(1)
    ground.after(1)
    [sample] = event(ground)["data"]["tasks"]
    assert sample["verdict"] == "never_started"
    assert sample["reason"].startswith("its request failed after it was scheduled")


def test_the_ledger_of_the_window_adds_up_and_counts_all_work_beside(ground: Any) -> None:
    for _ in range(3):
        ground.finish(ground.start())
    ground.start("audit.write")
    ground.fail(ground.start())
    ground.after(0)
    ground.after(1)
    window = event(ground)["data"]["incident"]["ledger"]
    terms = {k: window[k] for k in ("tasks", "succeeded", "failed", "cancelled", "in_time", "gap")}
    assert terms == {"tasks": 4, "succeeded": 3, "failed": 1, "cancelled": 0, "in_time": 0, "gap": 0}
    assert window["from"] < window["to"]


def test_the_window_of_lost_work_covers_its_whole_service(ground: Any) -> None:
    ground.finish(ground.start("audit.write"))
    ground.start()
    ground.kill()
    ground.after(0)
    ground.after(1)
    window = event(ground)["data"]["incident"]["ledger"]
    assert (window["tasks"], window["succeeded"], window["gap"]) == (2, 1, 1)


def test_samples_are_the_oldest_and_the_rest_is_counted(make_ground: Any) -> None:
    ground = make_ground(AlertRules(endpoints=(OPEN,), sample_tasks=3))
    tasks = []
    for _ in range(7):
        tasks.append(ground.start())
        ground.later(0.5)
    ground.kill()
    ground.after(0)
    ground.after(1)
    data = event(ground)["data"]
    assert [task["id"] for task in data["tasks"]] == tasks[:3]
    assert (data["tasks_truncated"], data["incident"]["counts"]["open"]) == (4, 7)


def test_an_update_lists_what_is_open_and_the_end_lists_all(ground: Any) -> None:
    first, second = ground.start(), ground.start()
    ground.after(30)
    ground.after(1)
    ground.deliver()
    ground.finish(first)
    ground.start()
    ground.later(30)
    ground.finish(second)
    third = ground.start()
    ground.after(61)
    data = event(ground)["data"]
    assert first not in [task["id"] for task in data["tasks"]]
    assert data["incident"]["counts"]["settled"]["finished_late"] == 2
    for row in ground.conn.execute("SELECT id FROM task WHERE loose = 1").fetchall():
        ground.finish(str(__import__("uuid").UUID(bytes=row["id"])))
    ground.after(0)
    data = event(ground)["data"]
    assert event(ground)["type"].endswith("resolved")
    assert data["incident"]["resolution"] == "finished_late"
    assert len(data["tasks"]) == data["incident"]["counts"]["total"] == 4
    assert {first, second, third} <= {task["id"] for task in data["tasks"]}
    assert {task["settled"] for task in data["tasks"]} == {"finished_late"}


def test_arguments_and_exception_texts_go_only_to_who_may_see_them(frank: Any) -> None:
    frank.fail(frank.start(args={"card": "4111"}), message="card 4111 refused")
    frank.after(0)
    frank.after(1)
    for endpoint in ("ops", "frank"):
        [sample] = event(frank, endpoint)["data"]["tasks"]
        told = endpoint == "frank"
        assert ("4111" in json.dumps(event(frank, endpoint))) is told
        assert sample["error"] == {
            "type": "TimeoutError",
            "message": "card 4111 refused" if told else None,
            "traceback": "Traceback ..." if told else None,
        }
        assert sample["reason"] == "TimeoutError" + (": card 4111 refused" if told else ""), "the problem is not said twice"


def test_titles_never_hold_an_exceptions_text(frank: Any) -> None:
    frank.fail(frank.start(), message="card 4111 refused")
    frank.after(0)
    frank.after(1)
    assert frank.incident().title == "mail.send_receipt of shop-web failed"


def test_a_body_stays_under_its_limit_whatever_the_tasks_hold(make_ground: Any) -> None:
    ground = make_ground(AlertRules(endpoints=(FRANK,), sample_tasks=50))
    for n in range(60):
        task = ground.start(name="job." + "n" * 150, key="k" * 200, args={"text": "\u20ac" * 600, "n": n})
        ground.tell({"type": "failed", "task": task, "error": {"type": "E", "message": "m" * 2000, "traceback": "t" * 9000}})
    ground.after(0)
    ground.after(1)
    [notice] = ground.notices("frank")
    assert len(notice.body.encode()) <= BODY_BYTES_MAX
    data = json.loads(notice.body)["data"]
    assert data["tasks"], "some still fit"
    assert len(data["tasks"]) + data["tasks_truncated"] == data["incident"]["counts"]["open"] == 60
    assert all(set(task["left_out"]) == {"args", "traceback"} for task in data["tasks"])


def test_without_external_url_a_notice_names_host_and_command_instead_of_a_loopback_link(frank: Any) -> None:
    frank.fail(frank.start())
    frank.after(0)
    frank.after(1)
    found = event(frank)
    incident, [sample] = found["data"]["incident"], found["data"]["tasks"]
    assert (incident["url"], incident["host"], incident["command"]) == (
        None,
        "prod-eu-1",
        f"curl http://localhost/api/v1/incidents/{incident['id']}",
    )
    assert sample["url"] is None
    assert "127.0.0.1" not in json.dumps(found)


def shape(value: Any) -> Any:
    """The keys of a JSON value, all the way down."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_the_example_in_the_documents_has_the_shape_of_a_real_notice(ground: Any) -> None:
    text = (ROOT / "docs" / "webhook.md").read_text("utf-8")
    [example] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    ground.boot("web-3", "2025.11.3")
    ground.start(key="order-7")
    ground.kill()
    ground.after(0)
    ground.after(1)
    assert shape(example) == shape(event(ground))
    data = example["data"]
    assert data["tasks_truncated"] + len(data["tasks"]) == data["incident"]["counts"]["open"]
