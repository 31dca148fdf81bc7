"""The forms about incidents, silences, endpoints and notices: what is asked for, and what a refusal shows."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard import shop
from dashboard.checks import check
from dashboard.fake_alerts import FakeAlerts, FakeEndpoints
from dashboard.fakes import VIEWER, Client, Visit
from looseends.wire import NS
from looseends_daemon.core.resources import CommandRefused


async def post(client: Client, path: str, **fields: str) -> Any:
    return await client.post(path, data=fields, allow_redirects=False)


async def test_an_acknowledgement_carries_its_note_and_its_time(visit: Visit) -> None:
    alerts = FakeAlerts(shop.full())
    client = await visit(alerts.reader, alerts=alerts)
    answer = await post(client, "/incidents/inc_lost/acknowledge", note="mine", expires="8h")
    assert (answer.status, answer.headers["Location"]) == (303, "/incidents/inc_lost")
    assert alerts.asked[0] | {"actor": ""} == {"acknowledged": "inc_lost", "note": "mine", "expires": 28_800, "actor": ""}


@pytest.mark.parametrize("expires", ["soon", "1.5h", "-2h", "99999d", "2 years"])
async def test_a_duration_that_cannot_be_read_is_refused_with_what_may_stand_there(visit: Visit, expires: str) -> None:
    alerts = FakeAlerts(shop.full())
    client = await visit(alerts.reader, alerts=alerts)
    answer = await post(client, "/incidents/inc_lost/acknowledge", note="mine <b>", expires=expires)
    text = await answer.text()
    check(text)
    assert answer.status == 422
    assert "such as 30m, 2h or 7d" in text
    assert 'value="mine &lt;b&gt;"' in text
    assert alerts.asked == []


async def test_a_refused_dismissal_keeps_the_note_and_opens_its_form(visit: Visit) -> None:
    alerts = FakeAlerts(shop.full(), refusal=CommandRefused(409, "They are others by now", ["4 are open"]))
    client = await visit(alerts.reader, alerts=alerts)
    answer = await post(client, "/incidents/inc_lost/dismiss", note="load test", digest="d" * 32)
    document = check(await answer.text())
    assert answer.status == 409
    assert "They are others by now" in "".join(document.itertext())
    assert [field.get("value") for field in document.iter("input") if field.get("id") == "dismiss-note"] == ["load test"]


async def test_a_silence_is_made_of_lines_and_a_preview_makes_none(visit: Visit) -> None:
    alerts = FakeAlerts(shop.full(), now=shop.NOW)
    client = await visit(alerts.reader, alerts=alerts)
    fields = {"matchers": 'service="shop-web"\r\n\r\nname="x"', "comment": "noise", "duration": "2h"}
    answer = await post(client, "/silences", do="preview", **fields)
    assert answer.status == 200
    assert "This would hide 2 incidents" in await answer.text()
    assert alerts.asked == []
    answer = await post(client, "/silences", do="silence", **fields)
    assert answer.status == 303
    assert alerts.asked[0]["silenced"] == ['service="shop-web"', 'name="x"']
    assert alerts.asked[0]["ends_at"] == shop.NOW + 7200 * NS


async def test_endpoints_and_notices_are_acted_on_by_name(visit: Visit) -> None:
    endpoints = FakeEndpoints(shop.full())
    client = await visit(endpoints.reader, endpoints=endpoints)
    for act in ("test", "enable", "disable"):
        assert (await post(client, f"/endpoints/pager/{act}")).status == 303
    assert (await post(client, "/endpoints/pager/eat")).status == 404
    assert (await post(client, "/endpoints/nobody/test")).status == 404
    assert (await post(client, "/notices/msg_1/resend")).headers["Location"] == "/notices/msg_1"
    assert endpoints.asked == [
        ("test", "pager"),
        ("enable", "pager"),
        ("disable", "pager"),
        ("test", "nobody"),
        ("resend", "msg_1"),
    ]


async def test_a_viewer_sees_no_form_that_would_be_refused(visit: Visit) -> None:
    client = await visit(shop.full(), actor=VIEWER)
    for path in ("/incidents/inc_lost", "/silences", "/endpoints", "/notices/msg_1", "/dismissals/dis_2", "/setup", "/types"):
        document = check(await (await client.get(path)).text())
        forms = [form.get("action") for form in document.iter("form") if form.get("method") == "post"]
        assert set(forms) <= {"/theme", "/sign-out"}, path


async def test_where_only_a_form_leads_a_reload_goes_back_to_its_page(visit: Visit) -> None:
    client = await visit(shop.full())
    places = {
        "/incidents/inc_lost/dismiss": "/incidents/inc_lost",
        "/silences/sil_1/end": "/silences",
        "/endpoints/pager/test": "/endpoints",
        "/notices/msg_1/resend": "/notices/msg_1",
        "/setup/lose": "/setup",
    }
    for path, wanted in places.items():
        assert (await client.get(path, allow_redirects=False)).headers["Location"] == wanted
