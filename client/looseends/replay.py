"""Takes orders from a proven daemon and runs each as a new task whose id is the order's.

Rules:

1. Proven: a unix socket whose peer has our uid or root's, or a `mac` by the order key over the claim's answer. Without
   either, nothing is claimed, and that is said once.
2. Only a registered function with an unchanged signature runs, with arguments rebuilt through the allow-list; all else
   is `refused` in words. An order id runs once in a process, whatever the daemon says.
3. `async def` functions run on the service's own loop (in a thread of their own where no loop runs), others in a thread.
4. Work of a queue goes back into that queue where this process uses it (integrations/handover.py).
5. No more run at once, and no more are begun in a second, than the process's limits say; once it shuts down none is taken, and
   `shutdown` waits for those that run.
"""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from . import record, trouble
from .context import CURRENT, Task
from .handing import NotKnown, hand_over, handed_signature, queues_loaded, way_of
from .rebuild import DecodeError, decode_args
from .scrub import scrub
from .slots import clean
from .spec import REGISTRY, Spec
from .transport import Transport
from .wire import canonical, is_uuid, order_mac

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .lifecycle import Process

RUNNING_MAX = 8
"""Replays at once in one process, unless LOOSEENDS_REPLAY_CONCURRENCY (1 to 64) says otherwise."""
SEEN_MAX = 10_000
LOOK_S = 3.0
"""How often it is looked whether a function can be reached through a queue by now."""
_LIMITS = {"CONCURRENCY": (1.0, 64.0), "PER_SECOND": (0.01, 1_000.0)}


def limit(name: str, environ: Mapping[str, str], usual: float) -> float:
    """LOOSEENDS_REPLAY_CONCURRENCY or _PER_SECOND; `usual` where it is not set. A wrong one is noted and not used."""
    text = environ.get(f"LOOSEENDS_REPLAY_{name}")
    if not text:
        return usual
    low, high = _LIMITS[name]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if low <= value <= high:
        return value
    trouble.note("a setting is wrong", f"LOOSEENDS_REPLAY_{name} is a number from {low:g} to {high:g}, not {text[:40]!r}")
    return usual


class Runs:
    """The replays that run in this process now: how many at once, how many a second, and the wait for the last of them."""

    def __init__(self, at_once: int = RUNNING_MAX, per_second: float = 0.0) -> None:
        """`per_second` 0: as many as come."""
        self._at_once, self._per_second = at_once, per_second
        self._credit, self._counted_at = 1.0, time.monotonic()
        self._lock = threading.Lock()
        self.running = 0
        self.closed = False

    def begin(self) -> bool:
        """Take a place, if there is one now."""
        with self._lock:
            now = time.monotonic()
            if self._per_second:
                most = max(1.0, self._per_second)  # orders come once a second: a second's worth of them may begin together
                self._credit = min(most, self._credit + (now - self._counted_at) * self._per_second)
                self._counted_at = now
            if self.closed or self.running >= self._at_once or (self._per_second and self._credit < 1.0):
                return False
            self.running += 1
            self._credit -= 1.0
            return True

    def unclaimed(self) -> None:
        """Give a place back in which nothing ran."""
        with self._lock:
            self._credit += 1.0
        self.end()

    def end(self) -> None:
        """Give a place back."""
        with self._lock:
            self.running -= 1


RUNS = Runs()
"""Of the orders that this process takes now; `shutdown` closes it and waits for it (background.py)."""


class Orders:
    """One instance's side of the replay contract. Used by the sender's thread; the functions run elsewhere."""

    def __init__(self, instance: str, transport: Transport, process: Process) -> None:
        self._instance, self._transport, self._process = instance, transport, process
        self._seen: dict[str, None] = {}
        global RUNS
        at_once, per_second = int(limit("CONCURRENCY", os.environ, RUNNING_MAX)), limit("PER_SECOND", os.environ, 0.0)
        RUNS = self._runs = Runs(at_once, per_second)
        self._said = False
        self._offered, self._looked_at = b"", 0.0

    def changed(self, now: float) -> bool:
        """Whether what this process offers is something else than it last told: a queue may be set up after its functions."""
        if now - self._looked_at < LOOK_S or not queues_loaded():
            return False
        self._looked_at = now
        return self._body() != self._offered

    def functions(self) -> bytes:
        """The body of PUT functions: what this process would run."""
        self._offered = self._body()
        return self._offered

    @staticmethod
    def _body() -> bytes:
        found = [
            {
                "name": spec.name,
                "signature": handed_signature(spec, way),
                "code": spec.fields.get("code"),
                "replay": spec.replay or "yes",
                "caution": spec.caution,
                "via": way.system if way is not None else None,
            }
            for spec, way in ((spec, way_of(spec)) for spec in REGISTRY.functions.values())
        ]
        return canonical(found).encode()

    def take(self) -> None:
        """Fetch the orders that wait for this instance, and run what may be run."""
        if not self._transport.proven and not self._transport.order_key:
            return self._say_once("this connection proves nothing: use the unix socket, or a token with an order key")
        answer = self._transport.request("GET", f"/instances/{self._instance}/orders")
        items = answer.body.get("items") if answer.status == 200 and isinstance(answer.body, dict) else None
        for order in items if isinstance(items, list) else []:
            number = order.get("id") if isinstance(order, dict) else None
            if not isinstance(number, str) or not is_uuid(number) or number in self._seen:
                continue
            if not self._runs.begin():
                return None
            if not self._claim(number):
                self._runs.unclaimed()
        return None

    def _say_once(self, why: str) -> None:
        if not self._said:
            self._said = True
            trouble.note("an order was not taken; replay is off", why)

    def _claim(self, number: str) -> bool:
        """Whether a function runs now; it then gives its place back itself."""
        body = canonical({"instance": self._instance}).encode()
        answer = self._transport.request("POST", f"/orders/{number}/claim", body)
        if answer.status != 200 or not isinstance(answer.body, dict):
            return False
        order, fence = answer.body.get("order"), answer.body.get("fence")
        self._remember(number)
        if not isinstance(order, dict) or order.get("id") != number or not self._is_proven(order, answer.body.get("mac")):
            self._say_once("the claim's answer proves nothing: its mac is missing or wrong")
            return False
        try:
            if hand_over(order):
                self._report(number, fence, "handed_over", None)
                return False
            run = prepare(order, self._process)
        except NotKnown as error:  # the broker may have it: whoever says `refused` now may be wrong
            trouble.note("an order was handed to a queue, and nobody knows whether it got there", error)
            return False
        except Exception as error:  # noqa: BLE001 - whatever stands in the way, the operator is told
            self._report(number, fence, "refused", str(error.args[0] if error.args else type(error).__name__))
            return False
        self._report(number, fence, "started", None)
        run(self._runs.end)
        return True

    def _remember(self, number: str) -> None:
        self._seen[number] = None
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def _is_proven(self, order: dict[str, Any], mac: object) -> bool:
        if self._transport.proven:
            return True
        key = self._transport.order_key
        if not key or not isinstance(mac, str):
            return False
        return hmac.compare_digest(mac.encode(), order_mac(key, order, self._instance).encode())

    def _report(self, number: str, fence: object, outcome: str, detail: str | None) -> None:
        said = {"fence": fence, "outcome": outcome, "detail": clean(scrub(detail), 500) if detail else None}
        answer = self._transport.request("POST", f"/orders/{number}/result", canonical(said).encode())
        if answer.status not in (200, 204):
            trouble.note("an order's result was not taken", f"{answer.status} {str(answer.body)[:200]}")


def prepare(order: dict[str, Any], process: Process) -> Callable[[Callable[[], object]], None]:
    """Check an order against what is registered, record its task as scheduled, and give the call that runs it.

    Raises LookupError (nobody registered it), TypeError (the signature changed), DecodeError (arguments).
    """
    spec = REGISTRY.functions.get(str(order.get("name")))
    if spec is None or spec.function is None:
        raise LookupError(f"no function is registered here as {order.get('name')!r}")
    signature, recorded = spec.signature(), order.get("signature")
    if recorded is not None and recorded != signature:
        raise TypeError(f"its signature changed: {recorded} was asked for, {signature} is registered")
    args = order.get("args")
    if args is not None and not isinstance(args, dict):
        raise DecodeError("the order's arguments are no object")
    positional, named = bind(spec, decode_args(args or {}, REGISTRY.types()))
    task = _schedule(spec, order, positional, named)
    return lambda done: _run(spec, task, positional, named, process, done)


def bind(spec: Spec, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Values by parameter name -> the call. Raises TypeError where they do not fit."""
    import inspect

    assert spec.function is not None
    try:
        signature = inspect.signature(spec.function)
    except ValueError:
        return (), values
    positional: list[Any] = []
    named: dict[str, Any] = {}
    left = dict(values)
    in_order = True  # positional arguments stop where one was left out
    for name, parameter in signature.parameters.items():
        if name not in left:
            in_order = False
        elif parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(left.pop(name))
        elif parameter.kind is parameter.VAR_KEYWORD:
            named.update(left.pop(name))
        elif in_order and parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(left.pop(name))
        else:
            named[name] = left.pop(name)
    named.update(left)
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        raise TypeError(f"its arguments do not fit {signature}: {error}") from None
    return tuple(positional), named


def _schedule(spec: Spec, order: dict[str, Any], positional: tuple[Any, ...], named: dict[str, Any]) -> Task:
    text, problem = spec.shape.encode(positional, named)
    raw_id = bytes.fromhex(order["id"].replace("-", ""))
    replay_of = order.get("replay_of")
    extra = {"replay_of": replay_of if isinstance(replay_of, str) else None}
    task = record.begin(spec.via("replay"), text, problem, scheduled=True, extra=extra, raw_id=raw_id)
    task.replay_of = str(replay_of or "")
    task.idempotency = str(order.get("idempotency_key") or order["id"])
    return task


def _run(
    spec: Spec, task: Task, positional: tuple[Any, ...], named: dict[str, Any], process: Process, done: Callable[[], object]
) -> None:
    loop = process.loop
    try:
        if spec.is_async and loop is not None and loop.is_running():
            _on_loop(_call_async(spec, task, positional, named), loop, done)
        else:
            args = (spec, task, positional, named, done)
            threading.Thread(target=_in_thread, args=args, name="looseends-replay", daemon=True).start()
    except RuntimeError as error:  # no more threads, or the loop closed just now
        trouble.note("a replay could not begin", error)
        record.drop(task, "pool_broken")
        done()


def _on_loop(coroutine: Coroutine[Any, Any, None], loop: AbstractEventLoop, done: Callable[[], object]) -> None:
    import asyncio

    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise
    future.add_done_callback(lambda _: done())


def _in_thread(spec: Spec, task: Task, positional: tuple[Any, ...], named: dict[str, Any], done: Callable[[], object]) -> None:
    try:
        if spec.is_async:
            import asyncio

            asyncio.run(_call_async(spec, task, positional, named))
        else:
            _call(spec, task, positional, named)
    except BaseException as error:  # noqa: BLE001 - it is recorded as the task's failure; a thread's hook need not print it
        trouble.COUNTS["replays failed"] = trouble.COUNTS.get("replays failed", 0) + 1
        del error
    finally:
        done()


def _call(spec: Spec, task: Task, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    hand_in(spec, task)
    assert spec.function is not None
    try:
        spec.function(*positional, **named)
    except BaseException as error:
        record.end(task, error)
        raise
    record.end(task, None)


async def _call_async(spec: Spec, task: Task, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    hand_in(spec, task)
    assert spec.function is not None
    try:
        await spec.function(*positional, **named)
    except Exception as error:  # noqa: BLE001 - recorded as the task's failure; nobody waits for this future
        record.end(task, error)
    except BaseException as error:
        record.end(task, error)
        raise
    else:
        record.end(task, None)


def hand_in(spec: Spec, task: Task) -> None:
    """Make `task` the current one: an audited function starts it in place, any other starts here."""
    from .task import audited

    CURRENT.set(task)
    task.awaits = audited(spec.function)
    if task.awaits is None:
        record.start(task)
