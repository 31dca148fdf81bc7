"""A service never notices what its daemon does: same answers, bounded memory and disk, nothing lost once the daemon is back."""

from __future__ import annotations

import signal
from typing import Any

import pytest

RATE = 150.0
COUNT = 250
SPOOL_BYTES_MAX = 4 << 20
GROWTH_BYTES_MAX = 24 << 20


def failures(first: int, count: int) -> int:
    """How many of these numbers the work refuses."""
    return sum(number % 50 == 49 for number in range(first, first + count))


def untroubled(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The service holds what it should, and no more."""
    assert after["dropped"] == 0 and after["threads"] <= before["threads"] + 1, (before, after)
    assert after["spool_bytes"] <= SPOOL_BYTES_MAX
    assert after["resident_bytes"] - before["resident_bytes"] <= GROWTH_BYTES_MAX


def told_the_truth(slice_: dict[str, Any], count: int = COUNT) -> None:
    """Every request was answered, with the right answer."""
    assert (slice_["answers"], slice_["wrong"]) == (count, 0), slice_


@pytest.mark.parametrize("mode", ["stall", "refuse", "reset", "fail", "garbage", "other"])
def test_a_daemon_in_trouble_is_not_felt_and_gets_everything_later(house: Any, mode: str) -> None:
    service = house.service()
    told_the_truth(service.ask(0, 50, RATE), 50)
    house.wait_for_all(service, 50)
    before = service.state()
    house.bad.turn(mode)
    told_the_truth(service.ask(1_000, COUNT, RATE))
    after = service.state()
    untroubled(before, after)
    assert after["ran"] == before["ran"] + COUNT and after["unsent"] > 0
    assert house.ledger()["tasks"] == 50, "none of it reached the daemon meanwhile"
    assert mode == "refuse" or house.bad.heard[mode] > 0, "the client did try"
    house.bad.turn("pass")
    ledger = house.wait_for_all(service, 50 + COUNT)
    assert ledger["failed"] == failures(0, 50) + failures(1_000, COUNT) and ledger["gap"] == 0


def test_a_stopped_daemon_is_not_felt_and_gets_everything_later(house: Any) -> None:
    service = house.service()
    told_the_truth(service.ask(0, 50, RATE), 50)
    house.wait_for_all(service, 50)
    before = service.state()
    house.daemon.signal(signal.SIGSTOP)
    try:
        told_the_truth(service.ask(1_000, COUNT, RATE))
        untroubled(before, service.state())
    finally:
        house.daemon.signal(signal.SIGCONT)
    ledger = house.wait_for_all(service, 50 + COUNT)
    assert ledger["failed"] == failures(0, 50) + failures(1_000, COUNT)


def test_a_daemon_that_keeps_changing_its_manners_loses_nothing(house: Any) -> None:
    service = house.service()
    asked = 0
    for _ in range(3):
        for mode in ("reset", "pass", "garbage", "fail", "pass", "stall", "refuse"):
            house.bad.turn(mode)
            told_the_truth(service.ask(asked, 20, 400.0), 20)
            asked += 20
            service.state()
    house.bad.turn("pass")
    house.wait_for_all(service, asked)


def test_the_audited_service_answers_as_its_plain_twin_does(house: Any) -> None:
    told_the_truth(house.service("plain").ask(0, 100, RATE), 100)
    told_the_truth(house.service().ask(0, 100, RATE), 100)


# --- a rogue ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "abc.secret.the-order-key"], ids=["no token", "a token with an order key"])
def test_a_rogue_on_the_port_gets_no_order_executed(house: Any, token: str) -> None:
    house.bad.turn("rogue")
    service = house.service(**({"LOOSEENDS_TOKEN": token} if token else {}))
    told_the_truth(service.ask(0, 200, RATE), 200)
    for _ in range(20):
        service.state()
    wait_for_offers(house, service, claims=bool(token))
    after = service.state()
    assert after["ran"] == 200 and after["ran_for_a_rogue"] == 0
    assert after["trouble"]["an order was not taken; replay is off"] == 1
    assert bool(house.bad.claimed) is bool(token), "without an order key it does not even ask"


def test_the_same_rogue_with_the_stolen_order_key_would_be_obeyed(house: Any) -> None:
    """The control: what is refused above is a proof that is missing, not an order that could not run anyway."""
    house.bad.turn("rogue")
    house.bad.order_key = "the-order-key"
    service = house.service(LOOSEENDS_TOKEN="abc.secret.the-order-key")
    told_the_truth(service.ask(0, 50, RATE), 50)
    wait_for_offers(house, service, claims=True)
    for _ in range(400):
        if service.state()["ran_for_a_rogue"]:
            return
    raise AssertionError((service.state(), house.bad.heard, house.bad.claimed))


def wait_for_offers(house: Any, service: Any, claims: bool) -> None:
    """Until the rogue has offered an order, and the client has done with it what it does."""
    import harness

    def offered() -> bool:
        said = service.state()["trouble"].get("an order was not taken; replay is off", 0)
        return bool(house.bad.claimed) if claims else bool(said)

    harness.wait_until(offered, "an order to be offered")
    if claims and not house.bad.order_key:
        harness.wait_until(lambda: service.state()["trouble"].get("an order was not taken; replay is off"), "its refusal")
