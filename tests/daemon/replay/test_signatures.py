"""Seven ways to change a function after its arguments were recorded: each is refused, or asked about, never run in silence.

Both sides are real: what the client registers of real functions, what the daemon says of it, and the client's own last look.
"""

from __future__ import annotations

from typing import Any

import pytest

from looseends.replay import bind
from looseends.spec import Spec
from looseends_daemon.core.resources import CommandRefused


def recorded(user_id: int, amount: int) -> int:
    return amount * user_id


def renamed(uid: int, amount: int) -> int:
    return amount * uid


def reordered(amount: int, user_id: int) -> int:
    return amount * user_id


def new_required(user_id: int, amount: int, currency: str) -> int:
    return amount * user_id


def keyword_only(user_id: int, *, amount: int) -> int:
    return amount * user_id


def new_default(user_id: int, amount: int = 5) -> int:
    return amount * user_id


def positional_rename(user_id: int, value: int, /) -> int:
    return value * user_id


def other_unit(user_id: int, amount: int) -> int:
    return amount * 100 * user_id


MATRIX = [
    (renamed, "signature"),
    (reordered, "signature"),
    (new_required, "signature"),
    (keyword_only, "signature"),
    (new_default, "signature"),
    (positional_rename, "signature"),
    (other_unit, "code_changed"),
]


def registered(function: Any) -> dict[str, Any]:
    """What a client tells of this function, under the one name."""
    spec = Spec("shop.charge", function, source="task")
    return {"name": "shop.charge", "signature": spec.signature(), "code": spec.fields.get("code")}


@pytest.mark.parametrize(("changed", "reason"), MATRIX, ids=lambda value: getattr(value, "__name__", value))
async def test_a_changed_function_is_refused_or_asked_about(world: Any, changed: Any, reason: str) -> None:
    task = await world.lost(registered(recorded), name="shop.charge", args={"user_id": 7, "amount": 10})
    await world.instance(registered(changed))
    with pytest.raises(CommandRefused) as refused:
        await world.commands.replay_task(task, world.operator)
    assert [words.partition(": ")[0] for words in refused.value.reasons] == [reason]
    if reason == "signature":
        shown = refused.value.reasons[0]
        assert str(registered(recorded)["signature"]) in shown and str(registered(changed)["signature"]) in shown
        with pytest.raises(CommandRefused):
            await world.commands.replay_task(task, world.operator, confirm=["code_changed"])
    else:
        assert (await world.commands.replay_task(task, world.operator, confirm=[reason])).items


async def test_an_unchanged_function_runs(world: Any) -> None:
    task = await world.lost(registered(recorded), name="shop.charge", args={"user_id": 7, "amount": 10})
    await world.instance(registered(recorded))
    assert (await world.commands.replay_task(task, world.operator)).items


def test_binding_alone_would_let_some_of_them_through() -> None:
    """Why signatures are compared as text: by name, most of these changes still bind, and reordering is one of them."""
    values = {"user_id": 7, "amount": 10}
    let_through = []
    for changed, _ in MATRIX:
        try:
            bind(Spec("shop.charge", changed, source="task"), dict(values))
        except TypeError:
            continue
        let_through.append(changed.__name__)
    assert let_through == ["reordered", "keyword_only", "new_default", "other_unit"]
