"""Orders for the work of a queue: whether this process can send it back there, and the sending.

Rules: a library that is not loaded is not looked for; what is refused was certainly not sent; where nobody knows whether a broker
has a message, nothing is said, and the order stays as it is until its task is heard of or a person decides.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from . import trouble
from .rebuild import decode_args
from .spec import REGISTRY, Spec

if TYPE_CHECKING:
    from .integrations.handover import Way

SEND_S_MAX = 5.0
"""How long a broker may take for a message; the sender's thread waits for it."""
SYSTEMS = ("celery", "arq", "rq", "dramatiq", "huey")


class NotKnown(Exception):
    """Whether a queue has a message cannot be told from here."""


def queues_loaded() -> bool:
    """Whether an integration with any queue is loaded here."""
    return any(f"looseends.integrations.{system}" in sys.modules for system in SYSTEMS)


def way_of(spec: Spec) -> Way | None:
    """How a function is reached through a queue, where any integration with one is loaded."""
    if not queues_loaded():
        return None
    from .integrations import handover

    try:
        return handover.way_of(spec)
    except Exception as error:  # noqa: BLE001 - a library that is not as we know it must not keep the others from being offered
        trouble.note("a queue could not be looked through", error)
        return None


def handed_signature(spec: Spec, way: Way | None) -> str | None:
    """The signature that orders for this function bear."""
    if way is None:
        return spec.signature()
    from .integrations import handover

    return handover.signature(spec, way)


def hand_over(order: dict[str, Any]) -> bool:
    """Send the work of a queue back into it, under the order's id. False: it is no work of a queue that we reach.

    Raises what keeps it from being sent, and NotKnown where it may have been.
    """
    spec = REGISTRY.functions.get(str(order.get("name")))
    queue = order.get("queue")
    way = way_of(spec) if spec is not None and isinstance(queue, str) else None
    if spec is None or way is None:
        return False
    from .integrations import handover

    signature, asked_for = handed_signature(spec, way), order.get("signature")
    if asked_for is not None and asked_for != signature:
        raise TypeError(f"its signature changed: {asked_for} was asked for, {signature} is registered")
    args = order.get("args")
    values = by_name(spec, decode_args(args if isinstance(args, dict) else {}, REGISTRY.types()))
    failed: list[BaseException] = []

    def send() -> None:
        try:
            handover.send(way, order, queue, values)
        except BaseException as error:  # noqa: BLE001 - it is told where it is waited for
            failed.append(error)

    sending = threading.Thread(target=send, name="looseends-replay", daemon=True)
    sending.start()
    sending.join(SEND_S_MAX)
    if failed or sending.is_alive():
        raise NotKnown(failed[0] if failed else f"its broker has not answered for {SEND_S_MAX:g} s")
    return True


def by_name(spec: Spec, values: dict[str, Any]) -> dict[str, Any]:
    """Values by parameter name as keyword arguments, which is how a message carries them. Raises TypeError where it cannot."""
    import inspect

    assert spec.function is not None
    for name, parameter in inspect.signature(spec.function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            values = {**values, **values.pop(name, {})}
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY) and values.get(name):
            raise TypeError(f"argument {name} has no name to be sent by: this function takes it by its place")
        elif parameter.kind is parameter.VAR_POSITIONAL:
            values.pop(name, None)
    return values
