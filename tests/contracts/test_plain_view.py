"""The short way to a task's view says what the long way says, for every cell it takes on."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from looseends_daemon.core import view
from looseends_daemon.core.facts import SLOTS, Cells, Fact

BODIES: Any = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["mail.send", ""]),
        "service": st.sampled_from(["shop", "mail"]),
        "environment": st.just("production"),
        "key": st.just("order-7"),
        "duration": st.floats(0, 100),
        "will_retry": st.booleans(),
        "retry_at": st.integers(0, 10),
        "declared": st.booleans(),
        "error": st.just({"type": "ValueError"}),
    },
)
FACTS = st.builds(lambda at, said, body: Fact(at=at, said_at=said, body=body), st.integers(0, 10), st.integers(0, 10), BODIES)
CELLS = st.dictionaries(st.sampled_from(SLOTS), FACTS, min_size=1, max_size=4)


@given(cell=CELLS, attempt=st.integers(1, 3), who=st.sampled_from(["", "instance-a"]))
def test_the_short_way_says_what_the_long_way_says(cell: dict[str, Fact], attempt: int, who: str) -> None:
    cells: Cells = {(attempt, who): cell}
    short = view._plain(cells)
    assert short is None or short == view._general(cells)


def test_the_short_way_is_taken_by_what_nearly_all_tasks_are() -> None:
    begun, ended = Fact(at=1, said_at=1, body={"name": "a"}), Fact(at=2, said_at=2, body={})
    for cell in ({"started": begun}, {"started": begun, "finished": ended}, {"failed": ended, "started": begun}):
        assert view._plain({(1, "instance-a"): cell}) is not None
    for cell in (
        {"finished": ended},
        {"started": begun, "progress": ended},
        {"started": begun, "finished": ended, "failed": ended},
    ):
        assert view._plain({(1, "instance-a"): cell}) is None
    assert view._plain({(1, "a"): {"started": begun}, (2, "a"): {"started": begun}}) is None
