"""Which instances have a connection open, and which have let go of theirs: a fast sign of death where no lock can be seen.

Rules:

1. Only a direct connection on which an instance sent a heartbeat counts: who opens one for every request, or comes through a
   proxy, says nothing by closing it.
2. An instance is where it spoke last. It has departed when its peer ended that connection with no request unanswered, and it
   did not speak on another one for REOPEN_S.
3. After a freeze nothing of this is believed (`forget`): connections ended while we could not look.

Holds no clock: every method takes `now` in ns. At most one entry per open connection and DEPARTURES_MAX more.
"""

from __future__ import annotations

from looseends.wire import NS

REOPEN_S = 2.0
DEPARTURES_MAX = 10_000


class Presence:
    """Connections are numbers that the HTTP side gives out."""

    def __init__(self) -> None:
        self._speaker: dict[int, str] = {}
        self._at: dict[str, int] = {}
        self._spoke_at: dict[str, int] = {}
        self._departed: dict[str, int] = {}

    def spoke(self, connection: int, instance: str, now: int) -> None:
        """A heartbeat of this instance came on this connection."""
        self._departed.pop(instance, None)
        self._spoke_at[instance] = now
        self._speaker[connection] = instance
        self._at[instance] = connection

    def heard(self, instance: str) -> None:
        """Any other word of an instance, on whatever way: it is not gone."""
        self._departed.pop(instance, None)

    def ended(self, connection: int, now: int, *, by_peer: bool, unanswered: bool) -> None:
        """A connection is closed. `unanswered`: a request on it had no answer yet, so the peer may only have lost patience."""
        instance = self._speaker.pop(connection, None)
        if instance is None or self._at.get(instance) != connection:
            return
        del self._at[instance], self._spoke_at[instance]
        if by_peer and not unanswered and len(self._departed) < DEPARTURES_MAX:
            self._departed[instance] = now

    def is_here(self, instance: str) -> bool:
        """Whether its connection is open now."""
        return instance in self._at

    def spoke_at(self, instance: str) -> int:
        """When its last heartbeat came on the connection that is open now (ns); 0: it has none."""
        return self._spoke_at.get(instance, 0)

    def departed(self, now: int) -> list[tuple[str, int]]:
        """(instance, when its connection ended) of all that did not come back in time; each is told once."""
        gone = [(who, at) for who, at in self._departed.items() if now - at >= int(REOPEN_S * NS)]
        for who, _ in gone:
            del self._departed[who]
        return gone

    def forget(self) -> None:
        """Nothing that ended while we were frozen, or by another clock, is a sign of anything."""
        self._departed.clear()
