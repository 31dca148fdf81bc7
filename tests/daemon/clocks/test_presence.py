"""A direct connection that its peer ended and did not open again: gone within seconds, where no lock can be seen.

What must not look like that: a network that stalls, cuts or passes an end on late, a proxy that closes as it likes, and ourselves
when we are too busy to look.
"""

from __future__ import annotations

from looseends.wire import NS
from looseends_daemon.core.presence import DEPARTURES_MAX, REOPEN_S, Presence

WEB, FAR = "web-1", "10.0.0.7"
EACH_SECOND = 2 * NS
"""When the next heartbeat of an instance that speaks each second is overdue."""


class Line(Presence):
    """The same with seconds for times, and a connection that an instance keeps."""

    def keeps(self, connection: int, seconds: float, *, who: str = WEB, address: str = FAR) -> None:
        """An instance connects, tells a batch, and a heartbeat."""
        self.opened(connection, address, at(seconds))
        self.answered(connection)
        self.spoke(connection, who, at(seconds))
        self.answered(connection)

    def ends(self, connection: int, seconds: float, *, by_peer: bool = True, unanswered: bool = False) -> None:
        self.ended(connection, at(seconds), by_peer=by_peer, unanswered=unanswered)

    looks = 0

    def gone(self, seconds: float) -> list[str]:
        """Who departed since the last call, where somebody looks each fifth of a second until then."""
        found: list[str] = []
        while self.looks <= round(seconds * 5):
            found += [who for who, _ in self.departed(at(self.looks / 5))]
            self.looks += 1
        return found


def at(seconds: float) -> int:
    return int(seconds * NS)


def test_a_connection_that_its_peer_ended_is_a_departure_after_two_seconds() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.ends(1, 10)
    assert presence.gone(11.8) == []
    assert presence.departed(at(12)) == [(WEB, at(10))]
    assert presence.departed(at(13)) == [], "it is told once"


def test_who_opens_another_connection_and_speaks_has_not_departed() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.ends(1, 10)
    presence.spoke(2, WEB, at(11))
    assert presence.gone(60) == []


def test_who_says_anything_in_between_has_not_departed() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.ends(1, 10)
    presence.heard(WEB)
    assert presence.gone(60) == []


def test_an_older_connection_that_ends_says_nothing() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.keeps(2, 5)
    presence.ends(1, 10)
    assert presence.gone(60) == [] and presence.is_here(WEB)


def test_a_peer_that_lost_patience_has_not_departed_nor_has_one_that_we_cut_off_nor_one_lost_by_an_error() -> None:
    presence = Line()
    for number, (by_peer, unanswered) in enumerate([(True, True), (False, False), (False, True)]):
        presence.keeps(number, 0)
        presence.ends(number, 10, by_peer=by_peer, unanswered=unanswered)
    assert presence.gone(60) == []


def test_a_connection_without_a_heartbeat_says_nothing_by_closing() -> None:
    presence = Line()
    presence.opened(1, FAR, 0)
    presence.answered(1)
    presence.answered(1)
    presence.heard(WEB)
    presence.ends(1, 10)
    assert presence.gone(60) == []


def test_who_opens_a_connection_for_every_heartbeat_says_nothing_by_closing_it() -> None:
    presence = Line()
    for number in range(3):
        presence.opened(number, FAR, at(10 * number))
        presence.spoke(number, WEB, at(10 * number))
        presence.answered(number)
        presence.ends(number, 10 * number)
    assert presence.gone(60) == []


def test_a_connection_that_several_instances_share_is_a_proxys() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.spoke(1, "web-2", at(1))
    assert not presence.is_here(WEB) and presence.spoke_at(WEB) == 0
    presence.ends(1, 5)
    assert presence.gone(60) == []


def test_an_end_that_comes_when_the_instance_is_overdue_came_through_a_network_that_stalls() -> None:
    for ended, gone in ((1.9, [WEB]), (2.1, [])):
        presence = Line()
        presence.keeps(1, -1)
        presence.spoke(1, WEB, 0, patience=EACH_SECOND)
        presence.ends(1, ended)
        assert presence.gone(60) == gone


def test_after_a_heartbeat_that_was_old_when_it_came_an_end_is_no_sign_until_one_comes_in_time() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.spoke(1, WEB, at(10), said_at=at(6))
    presence.ends(1, 10.1)
    assert presence.gone(60) == []
    presence.keeps(2, 60)
    presence.spoke(2, WEB, at(61), said_at=at(57))
    presence.spoke(2, WEB, at(62), said_at=at(61.5))
    presence.ends(2, 62.1)
    assert presence.gone(65) == [WEB]


def test_while_somebody_from_there_waits_for_a_first_answer_nobody_has_departed() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.ends(1, 10)
    presence.opened(2, FAR, at(10.3))
    assert presence.gone(25) == [], "it may be on its way back, and the network stalls"
    presence.spoke(2, WEB, at(25), said_at=at(10.3))
    assert presence.gone(60) == []


def test_who_came_and_left_without_an_answer_may_come_again() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.ends(1, 10)
    presence.opened(2, FAR, at(11))
    presence.ends(2, 14)
    assert presence.gone(15.8) == []
    assert presence.gone(16) == [WEB]


def test_others_who_come_and_are_answered_hold_nothing_up() -> None:
    """A dashboard that asks each half second, a connection of long ago, one too late, and one from elsewhere."""
    presence = Line()
    presence.opened(90, FAR, at(2))
    presence.keeps(1, 0)
    presence.ends(1, 10)
    presence.opened(91, "10.0.0.8", at(10.5))
    for number in range(4):
        presence.opened(number + 2, FAR, at(10 + number / 2))
        presence.answered(number + 2)
        presence.ends(number + 2, 10.1 + number / 2)
    assert presence.gone(11.8) == []
    presence.opened(92, FAR, at(12.1))
    assert [who for who, _ in presence.departed(at(12.2))] == [WEB]


def test_where_somebody_came_back_from_the_dead_ends_of_connections_are_not_believed_again() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.ends(1, 10)
    assert presence.gone(12) == [WEB]
    presence.keeps(2, 20)
    presence.ends(2, 21)
    presence.keeps(3, 20, who="web-2")
    presence.ends(3, 21)
    assert presence.gone(60) == [], "something between us and there cuts connections of the living"
    presence.keeps(4, 60, who="web-3", address="10.0.0.8")
    presence.ends(4, 61)
    assert presence.gone(64) == ["web-3"], "that says nothing about other places"


def test_what_neighbours_send_of_a_dead_one_is_no_return() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.ends(1, 10)
    assert presence.gone(12) == [WEB]
    presence.heard(WEB)
    presence.keeps(2, 20, who="web-2")
    presence.ends(2, 21)
    assert presence.gone(24) == ["web-2"]


def test_time_in_which_nobody_looked_does_not_count() -> None:
    presence = Line()
    presence.keeps(1, 0)
    assert presence.gone(10) == []
    presence.ends(1, 10)
    assert presence.departed(at(14)) == [], "we were too busy to open the door for it"
    assert presence.departed(at(14.8)) == []
    assert presence.departed(at(15.2)) == [(WEB, at(10))]


def test_after_a_freeze_no_departure_is_believed() -> None:
    presence = Line()
    presence.keeps(1, 0)
    presence.ends(1, 10)
    presence.forget()
    assert presence.gone(60) == []


def test_what_is_remembered_is_bounded() -> None:
    presence = Line()
    for number in range(DEPARTURES_MAX + 10):
        presence.keeps(number, 0, who=f"web-{number}", address=f"host-{number}")
        presence.ends(number, 1)
    assert len(presence.departed(at(1 + REOPEN_S))) == DEPARTURES_MAX
    for number in range(2_000):
        presence.spoke(number, f"web-{number}", at(5))
    assert (len(presence._told), len(presence._untrue)) == (DEPARTURES_MAX - 2_000, 1_000)
