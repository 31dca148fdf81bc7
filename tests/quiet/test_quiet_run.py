"""What must not alarm does not, and what is lost among it is found with its cause and told: once each, and nothing else.

The same harness is proven on daemons that alarm for nothing, see nothing, tell nobody or name the wrong cause.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quiet import run
from quiet.stage import Stage

SMALL_S, LEASE_S = 3.0, 10.0
PATIENCE_S, IMPATIENCE_S = 20.0, 5.0


def test_quiet_work_alarms_nobody_and_every_planted_loss_is_found_and_told(
    set_stage: Callable[..., Stage], seconds: float, seed: int, say: Callable[[object], None]
) -> None:
    scale = run.Scale(seconds)
    account = run.whole(set_stage(lease_s=scale.lease_s), scale)
    say(f"seed {seed}; {account}")
    assert not account.wrong, "\n".join(account.wrong)


def small(stage: Stage, say: Callable[[object], None], patience_s: float = IMPATIENCE_S) -> list[str]:
    """What is wrong with this daemon, by a few stories and losses."""
    account = run.small(stage, SMALL_S, patience_s)
    say(account)
    return account.wrong


def test_an_honest_daemon_passes_the_short_run_that_its_faulty_sisters_fail(
    set_stage: Callable[..., Stage], say: Callable[[object], None]
) -> None:
    wrong = small(set_stage(lease_s=LEASE_S), say, PATIENCE_S)
    assert not wrong, "\n".join(wrong)


def test_an_absurd_setting_that_alarms_for_nothing_is_caught(
    set_stage: Callable[..., Stage], say: Callable[[object], None]
) -> None:
    wrong = small(set_stage(lease_s=LEASE_S, default_deadline="100ms"), say)
    assert any(line.startswith("false alarm, stuck:") and "story.normal" in line for line in wrong), wrong
    assert any(line.startswith("false alarm, notice of stuck:") for line in wrong), wrong


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("blind", "hung past its deadline, loss-1: found as none, not as stuck"),
        ("mute", "hung past its deadline, loss-1: found, and no notice told of it"),
        ("hasty", "false alarm, stuck"),
        ("loopless", "false alarm, lost"),
        ("vague", "hung past its deadline, loss-1: its reason does not match"),
    ],
)
def test_a_faulty_daemon_is_caught(
    set_stage: Callable[..., Stage], say: Callable[[object], None], fault: str, words: str
) -> None:
    wrong = small(set_stage(lease_s=LEASE_S, planted=fault), say)
    assert any(line.startswith(words) for line in wrong), wrong
