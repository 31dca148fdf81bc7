"""A direct connection that its peer ended and did not open again: gone within seconds, where no lock can be seen."""

from __future__ import annotations

from looseends.wire import NS
from looseends_daemon.core.presence import Presence

WEB = "web-1"


def departed(presence: Presence, seconds: float) -> list[str]:
    return [who for who, _ in presence.departed(int(seconds * NS))]


def test_a_connection_that_its_peer_ended_is_a_departure_after_two_seconds() -> None:
    presence = Presence()
    presence.spoke(1, WEB, 0)
    presence.ended(1, 10 * NS, by_peer=True, unanswered=False)
    assert departed(presence, 11.9) == []
    assert departed(presence, 12) == [WEB]
    assert departed(presence, 13) == [], "it is told once"


def test_who_opens_another_connection_has_not_departed() -> None:
    presence = Presence()
    presence.spoke(1, WEB, 0)
    presence.ended(1, 10 * NS, by_peer=True, unanswered=False)
    presence.spoke(2, WEB, 11 * NS)
    assert departed(presence, 60) == []


def test_who_says_anything_in_between_has_not_departed() -> None:
    presence = Presence()
    presence.spoke(1, WEB, 0)
    presence.ended(1, 10 * NS, by_peer=True, unanswered=False)
    presence.heard(WEB)
    assert departed(presence, 60) == []


def test_an_older_connection_that_ends_says_nothing() -> None:
    presence = Presence()
    presence.spoke(1, WEB, 0)
    presence.spoke(2, WEB, 5 * NS)
    presence.ended(1, 10 * NS, by_peer=True, unanswered=False)
    assert departed(presence, 60) == [] and presence.is_here(WEB)


def test_a_peer_that_lost_patience_has_not_departed_nor_has_one_that_we_cut_off() -> None:
    presence = Presence()
    for number, (by_peer, unanswered) in enumerate([(True, True), (False, False), (False, True)]):
        presence.spoke(number, WEB, 0)
        presence.ended(number, 10 * NS, by_peer=by_peer, unanswered=unanswered)
    assert departed(presence, 60) == []


def test_a_connection_without_a_heartbeat_says_nothing_by_closing() -> None:
    presence = Presence()
    presence.heard(WEB)
    presence.ended(1, 10 * NS, by_peer=True, unanswered=False)
    assert departed(presence, 60) == []


def test_after_a_freeze_no_departure_is_believed() -> None:
    presence = Presence()
    presence.spoke(1, WEB, 0)
    presence.ended(1, 10 * NS, by_peer=True, unanswered=False)
    presence.forget()
    assert departed(presence, 60) == []
