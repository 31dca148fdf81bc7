"""`looseends config check --probe`: every endpoint of a configuration is sent a test, and the heartbeat one ping, for real.

Rules: nothing is stored and no daemon is needed; what is sent is what a daemon would send. All are tried at once, each within its
own time limit. What a running daemon has disabled is said too, read from its database if that is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from importlib.metadata import version

from looseends_daemon.config import Settings
from looseends_daemon.core.delivery import Message, Outcome, plain_body, test_event
from looseends_daemon.notify.heartbeat import Heartbeat
from looseends_daemon.notify.reach import Reach
from looseends_daemon.notify.senders import make_sender
from looseends_daemon.notify.webhook import Target
from looseends_daemon.store.endpoints import disabled_in
from looseends_daemon.store.samples import new_id


def probe(settings: Settings) -> bool:
    """Try everything and print one line for each; returns whether all of it worked."""
    results = asyncio.run(_all(settings))
    if not results:
        print("nothing to probe: there is no [[endpoint]] and no [heartbeat] url")
        return True
    width = max(len(name) for name, _ in results)
    for name, outcome in results:
        said = "works" if outcome.delivered else "FAILS"
        print(f"{name:<{width}}  {said}  {outcome.words} ({outcome.duration:.2f} s)")
    stopped = disabled_in(settings.storage.path, [one.name for one in settings.endpoints])
    for name, detail in stopped:
        print(f"{name}: the daemon has disabled it ({detail}); POST /api/v1/endpoints/{name}/enable")
    return all(outcome.delivered for _, outcome in results) and not stopped


async def _all(settings: Settings) -> Sequence[tuple[str, Outcome]]:
    network = settings.network
    reach = Reach(allow_private=network.allow_private, deny=network.deny_networks)
    tries = [_endpoint(settings, n, reach) for n in range(len(settings.endpoints))]
    if settings.heartbeat.url is not None:
        tries.append(_heartbeat(settings.heartbeat.url, reach))
    return await asyncio.gather(*tries)


async def _endpoint(settings: Settings, n: int, reach: Reach) -> tuple[str, Outcome]:
    one = settings.endpoints[n]
    target = Target(name=one.name, url=one.url, secrets=one.secrets, timeout=one.timeout)
    sender = make_sender(one.kind, target, reach, version=version("looseends"), clock=time.time_ns)
    now = time.time_ns()
    ident = new_id("msg", now)
    event = test_event(message_id=ident, source=settings.server.instance, endpoint=one.name, at=now, by="config check")
    try:
        outcome = await sender.post(Message(id=ident, endpoint=one.name, body=plain_body(event), attempt=1))
    finally:
        await sender.close()
    return f"endpoint {one.name}", outcome


async def _heartbeat(url: str, reach: Reach) -> tuple[str, Outcome]:
    heartbeat = Heartbeat(url, reach, version=version("looseends"))
    try:
        return "heartbeat", await heartbeat.beat()
    finally:
        await heartbeat.close()
