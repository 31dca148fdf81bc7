"""What a person reads on a phone."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from looseends_daemon.core.alerts import alert_of, ended
from looseends_daemon.core.delivery import envelope
from looseends_daemon.core.delivery import test_event as event_for_a_test
from looseends_daemon.core.texts import TASKS_SHOWN_MAX, TEXT_CHARS_MAX, TITLE_CHARS_MAX, text_of

NS = 10**9


def event(*, tasks: int = 2, more: int = 0, **changes: Any) -> dict[str, Any]:
    incident = {
        "id": "inc_1",
        "state": "open",
        "reason": "first_notification",
        "problem": "lost",
        "severity": "critical",
        "title": "12 tasks lost when shop-web on web-3 died at 14:05 UTC",
        "labels": {"service": "shop-web", "name": None, "instance": "5e0b", "environment": "production"},
        "opened_at": "2026-11-20T14:05:31.000000Z",
        "acknowledged": None,
        "resolved_at": None,
        "resolution": None,
        "counts": {"open": tasks + more, "total": tasks + more, "settled": {}},
        "url": "https://le.example.org/incidents/inc_1",
        **changes,
    }
    made = envelope(message_id="msg_1", source="eu", type_="opened", at=0, sequence=1, incident=incident)
    listed = [
        {"name": "mail.send_receipt", "key": f"order-{n}", "state": "running", "verdict": "lost", "reason": "process killed"}
        for n in range(tasks)
    ]
    return {**made, "data": {**made["data"], "tasks": listed, "tasks_truncated": more}}


def test_title_cause_names_and_what_to_press_in_this_order() -> None:
    text = text_of(event(more=10))
    assert text.title == "CRITICAL: 12 tasks lost when shop-web on web-3 died at 14:05 UTC"
    assert text.body.splitlines() == [
        "shop-web, production",
        "12 open of 12",
        "- mail.send_receipt order-0 (lost): process killed",
        "- mail.send_receipt order-1 (lost): process killed",
        "and 10 more",
        "",
        "Replay or dismiss: https://le.example.org/incidents/inc_1",
    ]


def test_a_second_message_says_why_it_is_sent() -> None:
    first = {reason: text_of(event(reason=reason)).body.splitlines()[0] for reason in ("repeat_interval", "manual_resend")}
    assert first == {
        "repeat_interval": "Still open; nobody has settled it.",
        "manual_resend": "Sent again by hand; this is how it stands now.",
    }
    acknowledged = {"by": "anna", "note": "on it", "at": "2026-11-20T14:06:00Z"}
    said = text_of(event(reason="acknowledged", acknowledged=acknowledged)).body
    assert said.splitlines()[0] == "Acknowledged by anna: on it"


def test_the_end_begins_with_the_word_settled_and_shouts_no_severity() -> None:
    text = text_of(event(state="resolved", title="Settled: 12 tasks lost; all replayed"))
    assert text.title == "Settled: 12 tasks lost; all replayed"
    assert "What happened: https://" in text.body


def test_without_a_public_address_it_says_where_to_go_and_what_to_type() -> None:
    text = text_of(event(url=None, host="prod-eu-1", command="curl http://127.0.0.1:3637/api/v1/incidents/inc_1"))
    assert text.body.splitlines()[-1] == "Replay or dismiss: on prod-eu-1, curl http://127.0.0.1:3637/api/v1/incidents/inc_1"


def test_a_long_list_is_counted() -> None:
    lines = text_of(event(tasks=TASKS_SHOWN_MAX + 3, more=100)).body.splitlines()
    assert sum(line.startswith("- ") for line in lines) == TASKS_SHOWN_MAX
    assert "and 103 more" in lines


@given(st.text(max_size=500), st.text(max_size=500))
def test_no_name_breaks_out_of_its_line(title: str, reason: str) -> None:
    made = event(title=title, tasks=1)
    made["data"]["tasks"][0]["reason"] = reason
    text = text_of(made)
    assert len(text.title) <= TITLE_CHARS_MAX
    assert len(text.body) <= TEXT_CHARS_MAX
    assert text.title.isprintable()
    assert all(line.isprintable() for line in text.body.splitlines())
    assert len(text.body.splitlines()) == 5


# --- alerts -------------------------------------------------------------------------------------------------------


def test_an_alert_is_known_by_its_cause_and_not_by_its_counts() -> None:
    now = 1_795_000_000 * NS
    one, two = alert_of(event(tasks=1), now), alert_of(event(tasks=2, title="another"), now + NS)
    assert (
        one["labels"]
        == two["labels"]
        == {
            "alertname": "LooseEndsLost",
            "service": "shop-web",
            "instance": "5e0b",
            "environment": "production",
            "problem": "lost",
            "severity": "critical",
            "looseends": "eu",
        }
    )
    assert one["annotations"] != two["annotations"]
    assert one["generatorURL"] == "https://le.example.org/incidents/inc_1"


def test_an_open_alert_ends_by_itself_and_a_resolved_one_when_it_did() -> None:
    now = 1_795_176_331 * NS
    assert alert_of(event(), now)["endsAt"] == "2026-11-20T12:09:31.000000Z"
    over = alert_of(event(state="resolved", resolved_at="2026-11-20T12:00:00.000000Z"), now)
    assert over["endsAt"] == "2026-11-20T12:00:00.000000Z"
    assert ended(alert_of(event(), now), now)["endsAt"] == "2026-11-20T12:05:31.000000Z"


def test_never_started_is_one_word_in_an_alert_name() -> None:
    assert alert_of(event(problem="never_started"), 0)["labels"]["alertname"] == "LooseEndsNeverStarted"


def test_a_test_is_an_alert_of_its_own() -> None:
    made = event_for_a_test(message_id="msg_1", source="eu", endpoint="am", at=0, by="anna")
    assert alert_of(made, 0)["labels"] == {"alertname": "LooseEndsTest", "looseends": "eu", "endpoint": "am"}
