"""What waits to be written, who was sent away because of it, and what services still have: seen on the Status page."""

from __future__ import annotations

from dashboard import shop
from dashboard.checks import check
from dashboard.fakes import Visit


async def test_the_status_page_says_what_waits_and_who_was_sent_away(visit: Visit) -> None:
    client = await visit(shop.full())
    seen = " ".join(" ".join(check(await (await client.get("/status")).text()).itertext()).split())
    assert "Waiting to be written 3.0 MiB of 32.0 MiB, at most 9.0 MiB; 2 batches told to come again" in seen
    assert "Still with the services 41,000 records of 1 instance" in seen


async def test_where_nothing_waits_it_says_so(visit: Visit) -> None:
    reader = shop.full()
    reader.vitals.storage.update(queued=0, refused=0, behind_records=0)
    client = await visit(reader)
    seen = " ".join(" ".join(check(await (await client.get("/status")).text()).itertext()).split())
    assert "Waiting to be written 0 B of 32.0 MiB, at most 9.0 MiB" in seen
    assert "told to come again" not in seen
    assert "Still with the services nothing: all that is known is here" in seen
