"""Two daemons on one file: the second says who has it and ends, the first notices nothing."""

from __future__ import annotations

from faulty import Faulty, started


def test_a_second_daemon_names_the_first_and_ends_with_1_and_the_first_goes_on(faulty: Faulty) -> None:
    faulty.start()
    code, said = faulty.command("serve")
    assert code == 1 and f"already served by another looseends (pid {faulty.process.pid})" in said and said.count("\n") == 0, said
    assert faulty.ask("POST", "/api/v1/events", started(0, 3, deadline="never"))[0] == 200
    assert len(faulty.states()) == 3 and faulty.ready() == ""
