"""Ten thousand tasks over five processes, four of them killed: our rows against receipts that the tasks wrote themselves."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

LIVES, EACH, HANGING = 5, 2_000, 10
SERVICE = """
import asyncio, os, sys
import looseends
looseends.install("asyncio")
from looseends.lifecycle import PROCESS
PROCESS.born -= 11_000_000_000      # older than ten seconds: what it begins is no loop
life, each, hanging = map(int, sys.argv[1:])
receipts = os.open("receipts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def receipt(number, word): os.write(receipts, f"{number} {word}\\n".encode())

async def work(number):
    receipt(number, "begun")
    await asyncio.sleep(0.001 * (number % 5))
    if number % 7 == 0:
        receipt(number, "failed")
        raise ValueError(number)
    receipt(number, "succeeded")

async def hang(number):
    receipt(number, "begun")
    await asyncio.sleep(3600)

async def main():
    first = life * each
    for start in range(first, first + each - hanging, 100):
        numbers = range(start, min(start + 100, first + each - hanging))
        await asyncio.gather(*[work(n) for n in numbers], return_exceptions=True)
    left = [asyncio.create_task(hang(n)) for n in range(first + each - hanging, first + each)]
    await asyncio.sleep(0.1)
    print("settled", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def rows(daemon: Any, q: str) -> list[dict[str, Any]]:
    """Every task of a query, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, text = daemon.get(f"/api/v1/tasks?limit=500&q={quote(q)}{cursor}")
        assert status == 200, text
        page = json.loads(text)
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={quote(page['next_cursor'])}"


def test_our_rows_equal_the_receipts_row_by_row(daemon: Any, tmp_path: Path, capsys: Any) -> None:
    for life in range(LIVES):
        service = daemon.python(SERVICE, tmp_path, str(life), str(EACH), str(HANGING))
        service.wait_for("settled", 60)
        if life < LIVES - 1:
            service.kill()

    def is_settled() -> bool:
        ledger = daemon.ledger()
        return bool(ledger["tasks"] == LIVES * EACH and ledger["in_time"] == HANGING)

    daemon.wait(is_settled, "all to be told, and all but the living to be judged", 60)

    receipts: dict[int, str] = {}
    for line in (tmp_path / "receipts").read_text().splitlines():
        number, word = line.split()
        receipts[int(number)] = word
    told = {task["args"]["number"]: task for task in rows(daemon, "name:shop.*")}
    assert len(told) == len(receipts) == LIVES * EACH
    killed = {n for n, word in receipts.items() if word == "begun" and n < (LIVES - 1) * EACH}
    for number, word in receipts.items():
        task = told[number]
        expected = ("running", "lost" if number in killed else None) if word == "begun" else (word, None)
        assert (task["state"], task["verdict"]) == expected, (number, word, task["reason"])
    ledger, words = daemon.ledger(), Counter(receipts.values())
    assert (ledger["succeeded"], ledger["failed"]) == (words["succeeded"], words["failed"])
    assert ledger["gap"] == ledger["loose"] == len(killed) == (LIVES - 1) * HANGING
    with capsys.disabled():
        print(
            f"\n  {len(told)} tasks, {LIVES - 1} kills: every row as its receipt, {ledger['gap']} in the gap, all of them killed"
        )
