"""Which instances have a connection open, and which have let go of theirs: a fast sign of death where no lock can be seen.

Rules:

1. Only a direct connection that an instance keeps for itself counts: it sent a heartbeat on it, and something else besides. Who
   opens one for every request, or comes through a proxy that says so or has others on it, says nothing by closing it.
2. An instance is where it spoke last. It has departed when its peer ended that connection in order (no error, no request
   without an answer), while it was in touch (below), and then neither spoke for REOPEN_S nor seemed about to.
3. In touch: its last heartbeat came in time, and the next one is not overdue. What comes through a network that stalls is old,
   and so is an end: it tells that the instance lost patience, or that something in between did.
4. Somebody who has opened a connection from the same address and got no answer on it yet may be the instance on its way back.
   Nothing is concluded while there is one who came within REOPEN_S, nor for as long after it left without an answer. The lease
   goes on meanwhile.
5. Who is heard again after it departed has shown that connections from its address end otherwise, too: from then on they say
   nothing, and the lease decides. So something in between that cuts as it likes is believed once at most.
6. Time in which nobody looked does not count: whoever came back may stand in front of a door that we were too busy to open. After
   a freeze nothing of all this is believed (`forget`).

Holds no clock: every method takes `now` in ns. Bounded by the open connections, DEPARTURES_MAX and ADDRESSES_MAX.
"""

from __future__ import annotations

from dataclasses import dataclass

from looseends.wire import NS

REOPEN_S = 2.0
LATE_S = 1.0
"""A heartbeat that took this much longer than its instance's fastest word came through something that stalls."""
PATIENCE_S = 15.5
"""When the next heartbeat is overdue, where nobody says so."""
LOOK_S_MAX = 1.0
WORDS_MIN = 2
DEPARTURES_MAX = 10_000
ADDRESSES_MAX = 1_000


@dataclass(slots=True)
class _Line:
    """An open connection: who speaks on it, until when that instance is in touch, how many answers it had."""

    address: str
    opened_at: int
    answers: int = 0
    instance: str = ""
    shared: bool = False
    spoke_at: int = 0
    until: int = 0


@dataclass(slots=True)
class _Departure:
    """`at`: when its connection ended; `since`: nothing has looked like its return since then."""

    address: str
    at: int
    since: int


class Presence:
    """Connections are numbers that the HTTP side gives out; addresses are hosts, without the port that changes each time."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}
        self._at: dict[str, int] = {}
        self._departed: dict[str, _Departure] = {}
        self._told: dict[str, str] = {}
        self._untrue: set[str] = set()
        self._looked_at: int | None = None

    # --- what happens ---

    def opened(self, connection: int, address: str, now: int) -> None:
        """Somebody connected from there."""
        self._lines[connection] = _Line(address, now)

    def answered(self, connection: int) -> None:
        """A request on it had its answer, whoever asked."""
        line = self._lines.get(connection)
        if line is not None:
            line.answers += 1

    def spoke(self, connection: int, instance: str, now: int, *, said_at: int | None = None, patience: int | None = None) -> None:
        """A heartbeat of this instance came on this connection, said at `said_at`; the next is overdue after `patience`."""
        self._departed.pop(instance, None)
        address = self._told.pop(instance, None)
        if address is not None and len(self._untrue) < ADDRESSES_MAX:
            self._untrue.add(address)
        line = self._lines.setdefault(connection, _Line("", now))
        if line.instance not in ("", instance):
            line.shared = True
            if self._at.get(line.instance) == connection:
                del self._at[line.instance]
        line.instance, line.spoke_at = instance, now
        is_late = said_at is not None and now - said_at > int(LATE_S * NS)
        line.until = 0 if is_late else now + (int(PATIENCE_S * NS) if patience is None else patience)
        self._at[instance] = connection

    def heard(self, instance: str) -> None:
        """Any other word of an instance, on whatever way: it is not gone."""
        self._departed.pop(instance, None)

    def ended(self, connection: int, now: int, *, by_peer: bool, unanswered: bool) -> None:
        """A connection is closed. `by_peer`: in order, by its other end. `unanswered`: an answer was not yet taken."""
        line = self._lines.pop(connection, None)
        if line is None:
            return
        if not line.answers:
            self._tried(line.address, now)
        if not line.instance or self._at.get(line.instance) != connection:
            return
        del self._at[line.instance]
        is_sign = by_peer and not unanswered and now <= line.until and line.answers >= WORDS_MIN and not line.shared
        if is_sign and line.address not in self._untrue and len(self._departed) < DEPARTURES_MAX:
            self._departed[line.instance] = _Departure(line.address, now, now)

    def _tried(self, address: str, now: int) -> None:
        for departure in self._departed.values():
            if departure.address == address:
                departure.since = max(departure.since, now)

    # --- what it means ---

    def is_here(self, instance: str) -> bool:
        """Whether its connection is open now."""
        return instance in self._at

    def spoke_at(self, instance: str) -> int:
        """When its last heartbeat came on the connection that is open now (ns); 0: it has none."""
        return self._lines[self._at[instance]].spoke_at if instance in self._at else 0

    def departed(self, now: int) -> list[tuple[str, int]]:
        """(instance, when its connection ended) of all that did not come back in time; each is told once."""
        before, self._looked_at = self._looked_at, now
        if not self._departed:
            return []
        unseen = 0 if before is None else max(0, now - before - int(LOOK_S_MAX * NS))
        trying = self._trying()
        for departure in self._departed.values():
            departure.since = max(departure.since, min(now, departure.since + unseen))
        gone = [(who, one) for who, one in self._departed.items() if _is_over(one, now, trying.get(one.address, []))]
        for who, one in gone:
            del self._departed[who]
            self._remember(who, one.address)
        return [(who, one.at) for who, one in gone]

    def _trying(self) -> dict[str, list[int]]:
        """Addresses from where somebody came who has no answer yet, and when each of them did."""
        found: dict[str, list[int]] = {}
        for line in self._lines.values():
            if not line.answers:
                found.setdefault(line.address, []).append(line.opened_at)
        return found

    def _remember(self, instance: str, address: str) -> None:
        if len(self._told) >= DEPARTURES_MAX:
            del self._told[next(iter(self._told))]
        self._told[instance] = address

    def forget(self) -> None:
        """Nothing that ended while we were frozen, or by another clock, is a sign of anything."""
        self._departed.clear()
        self._looked_at = None


def _is_over(departure: _Departure, now: int, trying: list[int]) -> bool:
    wait = int(REOPEN_S * NS)
    if now - departure.since < wait:
        return False
    return not any(departure.at - wait <= opened_at <= departure.since + wait for opened_at in trying)
