"""The doors of instances and orders over a real server: who may pass, what is answered, what mistakes are told."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.replay.behind_doors import ID, NOBODY, SEND, Served
from looseends.wire import order_mac


async def test_an_order_is_announced_listed_claimed_and_answered(served: Served) -> None:
    task = await served.lost_task()
    beat = {"at": 0, "last_seq": 3, "open": 1, "ended": 2, "dropped": 0, "backlog": 0, "loop_lag_ms": 1.5}
    assert await served.call("PUT", f"/instances/{ID}/heartbeat", beat) == (200, {"orders": 0, "stacks": []})
    replay = await served.world.commands.replay_task(task, served.world.operator)
    assert await served.call("PUT", f"/instances/{ID}/heartbeat", beat) == (200, {"orders": 1, "stacks": []})
    status, listed = await served.call("GET", f"/instances/{ID}/orders")
    assert (status, listed["items"][0]["id"]) == (200, replay.items[0].id)
    status, given = await served.call("POST", f"/orders/{replay.items[0].id}/claim", {"instance": ID})
    assert (status, given) == (200, {"order": listed["items"][0], "fence": 1, "mac": None})
    status, again = await served.call("POST", f"/orders/{replay.items[0].id}/claim", {"instance": ID})
    assert status == 409 and "claimed already" in again["detail"]
    for fence, counted in ((2, False), (1, True)):
        said = {"fence": fence, "outcome": "refused", "detail": "signature differs"}
        _, answer = await served.call("POST", f"/orders/{replay.items[0].id}/result", said)
        assert answer["counted"] is counted
    (row,) = await served.world.rows("SELECT last_seq, open, loop_lag_ms FROM instance WHERE id = ?", ID)
    assert tuple(row) == (3, 1, 1.5)


async def test_who_comes_by_token_gets_a_mac_that_proves_the_daemon(served: Served) -> None:
    token = await served.token("ingest", "shop")
    task = await served.lost_task(token=token)
    order = (await served.world.commands.replay_task(task, served.world.operator)).items[0].id
    status, given = await served.call("POST", f"/orders/{order}/claim", {"instance": ID}, token=token)
    assert status == 200
    assert given["mac"] == order_mac(token.split(".")[2], given["order"], ID)
    assert given["mac"] != order_mac(token.split(".")[2], given["order"], NOBODY)


async def test_plain_loopback_gets_no_order(served: Served) -> None:
    task = await served.lost_task(tcp=True)
    with pytest.raises(Exception, match="cannot be replayed") as refused:
        await served.world.commands.replay_task(task, served.world.operator)
    assert refused.value.reasons[0].startswith("not_proven: ")  # type: ignore[attr-defined]


async def test_nobody_takes_an_order_for_an_instance_that_is_not_theirs(served: Served) -> None:
    token, other = await served.token("ingest", "shop"), await served.token("ingest", "shop")
    task = await served.lost_task(token=token)
    order = (await served.world.commands.replay_task(task, served.world.operator)).items[0].id
    for way in ({"token": other}, {"tcp": True}, {}):
        assert (await served.call("POST", f"/orders/{order}/claim", {"instance": ID}, **way))[0] == 403
        assert (await served.call("GET", f"/instances/{ID}/orders", **way))[0] == 403
        assert (await served.call("PUT", f"/instances/{ID}/heartbeat", {}, **way))[0] == 403
        assert (await served.call("PUT", f"/instances/{ID}/functions", [], **way))[0] == 403
        assert (await served.call("DELETE", f"/instances/{ID}", {}, **way))[0] == 403
    assert (await served.call("POST", f"/orders/{order}/claim", {"instance": ID}, token=token))[0] == 200
    for way in ({"token": other}, {"tcp": True}, {}):
        said = {"fence": 1, "outcome": "refused"}
        assert (await served.call("POST", f"/orders/{order}/result", said, **way))[0] == 403
    (row,) = await served.world.rows("SELECT state FROM replay_order")
    assert row["state"] == "claimed"


async def test_an_unknown_instance_is_asked_for_a_batch_first(served: Served) -> None:
    for method, path, body in (
        ("PUT", f"/instances/{NOBODY}/heartbeat", {}),
        ("PUT", f"/instances/{NOBODY}/functions", [SEND]),
        ("DELETE", f"/instances/{NOBODY}", {}),
        ("GET", f"/instances/{NOBODY}/orders", None),
        ("POST", f"/orders/{NOBODY}/claim", {"instance": NOBODY}),
    ):
        status, problem = await served.call(method, path, body)
        assert status == 404 and "send a batch first" in problem["detail"], (method, path)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "pointer"),
    [
        ("PUT", f"/instances/{ID}/heartbeat", {"open": -1}, 422, "/open"),
        ("PUT", f"/instances/{ID}/heartbeat", {"backlog": "3"}, 422, "/backlog"),
        ("PUT", f"/instances/{ID}/heartbeat", {"loop_lag_ms": True}, 422, "/loop_lag_ms"),
        ("PUT", f"/instances/{ID}/heartbeat", [1], 422, ""),
        ("PUT", f"/instances/{ID}/functions", {"name": "f"}, 422, ""),
        ("PUT", f"/instances/{ID}/functions", [SEND] * 1_001, 422, ""),
        ("PUT", f"/instances/{ID}/functions", [SEND, {**SEND, "name": "x" * 201}], 422, "/1/name"),
        ("PUT", f"/instances/{ID}/functions", [{**SEND, "replay": "no"}], 422, "/0/replay"),
        ("PUT", f"/instances/{ID}/functions", [{"name": "f"}], 422, "/0/replay"),
        ("PUT", f"/instances/{ID}/functions", ["f"], 422, "/0"),
        ("DELETE", f"/instances/{ID}", {"reason": "bored"}, 422, "/reason"),
        ("DELETE", f"/instances/{ID}", {"void": [1, -1]}, 422, "/void"),
        ("POST", f"/orders/{NOBODY}/claim", {}, 422, "/instance"),
        ("POST", f"/orders/{NOBODY}/result", {"fence": 1, "outcome": "done"}, 422, "/outcome"),
        ("POST", f"/orders/{NOBODY}/result", {"outcome": "started"}, 422, "/fence"),
        ("POST", f"/orders/{NOBODY}/result", {"fence": 1, "outcome": "started"}, 404, None),
        ("POST", "/orders/nonsense/claim", {"instance": ID}, 404, None),
    ],
)
async def test_each_mistake_is_named_with_its_place(
    served: Served, method: str, path: str, body: Any, status: int, pointer: str | None
) -> None:
    await served.lost_task()
    got, problem = await served.call(method, path, body)
    assert got == status, problem
    if pointer is not None:
        assert pointer in [entry["pointer"] for entry in problem["errors"]]


async def test_functions_are_replaced_as_a_whole(served: Served) -> None:
    await served.lost_task()
    await served.call("PUT", f"/instances/{ID}/functions", [{**SEND, "name": "other"}])
    rows = await served.world.rows("SELECT f.name FROM function f JOIN instance i ON i.no = f.instance WHERE i.id = ?", ID)
    assert [row["name"] for row in rows] == ["other"]


@pytest.mark.parametrize(
    ("reason", "adopted", "words"), [("exit", 0, "said goodbye"), ("killed", 0, "was killed"), ("adopted", 1, "another process")]
)
async def test_a_goodbye_says_why(served: Served, reason: str, adopted: int, words: str) -> None:
    await served.lost_task()
    goodbye = {"reason": reason, "last_seq": 9, "open": [NOBODY], "void": [4]}
    assert (await served.call("DELETE", f"/instances/{ID}", goodbye))[0] == 204
    (row,) = await served.world.rows("SELECT state, reason, adopted, last_seq, open FROM instance WHERE id = ?", ID)
    assert (row["state"], row["adopted"], row["last_seq"], row["open"]) == ("gone", adopted, 9, 1)
    assert words in row["reason"]


async def test_a_person_decides_an_unknown_outcome_with_an_operator_token(served: Served) -> None:
    task = await served.lost_task()
    order = (await served.world.commands.replay_task(task, served.world.operator)).items[0].id
    await served.call("POST", f"/orders/{order}/claim", {"instance": ID})
    await served.call("DELETE", f"/instances/{ID}", {"reason": "killed"})
    await served.world.replayer.run_once(served.world.later(1))
    operator, viewer = await served.token("operator"), await served.token("viewer")
    path, body = f"/orders/{order}/resolve", {"as": "ran", "note": "it is in the mailbox"}
    assert (await served.call("POST", path, body, token=viewer, key="12345678"))[0] == 403
    assert (await served.call("POST", path, body, token=operator))[0] == 400
    assert (await served.call("POST", path, {"as": "perhaps"}, token=operator, key="12345678"))[0] == 422
    status, replay = await served.call("POST", path, body, token=operator, key="12345679")
    assert (status, replay["items"][0]["state"], replay["counts"]["ran"]) == (200, "ran", 1)
