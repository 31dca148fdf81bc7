"""Numbers that a journal reserved and never wrote hold nothing: they are not missing, whoever reads the journal."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from looseends import journal
from looseends.journal import Journal
from looseends.slots import Name
from looseends_daemon.core.policy import Policy
from looseends_daemon.services.adopter import Adopter

WHO = "01234567-89ab-8def-8123-456789abcdef"


def holed(spool: Path) -> None:
    """Four records of which the second was reserved and never written: its thread was killed in between."""
    made = Journal(str(spool), {"id": WHO, "service": "shop"})
    number = made.name(Name("mail.send", (), "", {}))
    for record in range(1, 5):
        if record == 2:
            made.reserve()
        else:
            assert made.begin(number, b"", b"", 0, time.monotonic_ns()) is not None
    made.close()
    os.utime(spool / WHO, (1, 1))


def test_a_dead_process_leaves_its_void_numbers_in_its_journal(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    holed(tmp_path / "spool")
    orphan = journal.adopt(str(tmp_path / "spool" / WHO))
    assert orphan is not None
    told = [event["seq"] for batch in orphan.batches() for event in batch]
    assert (told, orphan.void()) == ([1, 3, 4], [2])
    orphan.close()


async def test_a_void_number_is_not_missing(house: Any, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    holed(tmp_path / "spool")
    house.clocks.wall = time.time_ns()
    adopter = Adopter(house.database, [str(tmp_path / "spool")], Policy())
    for _ in range(5):
        await adopter.run_once(time.time_ns())
    assert adopter.adopted == 1
    instance = await house.reader.instance(WHO)
    assert (instance.state, instance.missing, instance.notes) == ("gone", 0, [])


async def test_what_a_killed_process_could_not_keep_is_known_from_its_journal(house: Any, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    made = Journal(str(tmp_path / "spool"), {"id": WHO, "service": "shop"})
    assert made.begin(made.name(Name("mail.send", (), "", {})), b"", b"", 0, time.monotonic_ns()) is not None
    made.drop(7)
    made.close()
    os.utime(tmp_path / "spool" / WHO, (1, 1))
    house.clocks.wall = time.time_ns()
    adopter = Adopter(house.database, [str(tmp_path / "spool")], Policy())
    for _ in range(5):
        await adopter.run_once(time.time_ns())
    instance = await house.reader.instance(WHO)
    assert adopter.adopted == 1 and instance.dropped == 7 and len(instance.notes) == 1, instance.notes
