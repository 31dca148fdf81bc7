"""What the message of a replay carries, so that its worker can tell whose run it is again and by which key it is done once.

Rules:

1. The words ride beside the message, where each library keeps what it does not know: a worker without us never looks there.
2. They count only in the message that bears the order's own id: what a library copies into another message, or what a replay
   sends in its turn, is no replay.
3. A retry of a replay is the same task with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from looseends.context import Task
from looseends.slots import id_text
from looseends.wire import canonical_uuid, is_uuid

FIELD = "looseends_replay"
KEY_CHARS_MAX = 200
SENDING: ContextVar[tuple[str, str] | None] = ContextVar("looseends_order", default=None)
"""The order that is on its way into its queue: its id, and the words that go with it."""


def going(order: Mapping[str, Any]) -> None:
    """From here on, in this context, this order is being sent."""
    number, root = canonical_uuid(order["id"]), order.get("replay_of")
    if isinstance(root, str) and is_uuid(root):
        key = str(order.get("idempotency_key") or number)[:KEY_CHARS_MAX]
        SENDING.set((number, f"{number} {root} {key}"))


def words(task: bytes) -> str | None:
    """What the message of this task is to carry; None: it is no replay, or not the one that is being sent."""
    sending = SENDING.get()
    return sending[1] if sending is not None and sending[0] == id_text(task) else None


def tell(task: Task | None, carried: object) -> None:
    """Let a task know what its message carried; anything else than the words of its own order is nothing."""
    if task is None or not isinstance(carried, str):
        return
    number, _, rest = carried.partition(" ")
    root, _, key = rest.partition(" ")
    if number == task.id and is_uuid(root) and 0 < len(key) <= KEY_CHARS_MAX:
        task.replay_of, task.idempotency = root, key
