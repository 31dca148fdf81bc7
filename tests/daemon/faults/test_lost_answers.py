"""The answer is lost after the commit: the client sends again, the daemon counts duplicates, nothing is there twice."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

from between import Between
from faulty import Faulty, Service

TASKS, CUT_EVERY = 60, 3


def test_an_answer_lost_after_the_commit_makes_duplicates_and_nothing_twice(
    faulty: Faulty, between: Between, service: Callable[..., Service]
) -> None:
    faulty.start()
    numbers = itertools.count(1)
    between.cut = lambda exchange: exchange.is_batch and bool(exchange.asked["events"]) and next(numbers) % CUT_EVERY == 0
    one = service(between.path)
    for _ in range(TASKS // 6):
        one.do("run 5")
        one.do("fail 1")
        one.send()
    one.end()
    assert between.total("duplicates") > TASKS // 6 // CUT_EVERY, "this test cut too little"
    assert between.total("accepted") == 2 * TASKS, "each start and each end is new once"
    assert Counter(faulty.states().values()) == {"succeeded": TASKS * 5 // 6, "failed": TASKS // 6}
    ledger = faulty.get("ledger")
    assert (ledger["tasks"], ledger["succeeded"], ledger["failed"], ledger["gap"]) == (TASKS, TASKS * 5 // 6, TASKS // 6, 0)
