"""`looseends` with a fault planted in it, so that the quiet run can be seen to notice: planted_daemon.py FAULT serve ...

blind     the detector never looks: nothing is found
mute      what is found is told to nobody
loopless  captured work that ends with its process is lost, whatever it was
hasty     every clock is taken for right: no skew is corrected
vague     reasons do not name the cause
"""

from __future__ import annotations

import sys
from typing import Any

from looseends_daemon import cli
from looseends_daemon.core import detect
from looseends_daemon.services.detector import Detector
from looseends_daemon.services.dispatcher import Dispatcher
from looseends_daemon.store import facts, judgements


async def _nothing(self: object, now: int) -> None:
    """There is nothing to do, it seems."""


def blind() -> None:
    """No task is ever judged."""
    Detector.run_once = _nothing  # type: ignore[method-assign]


def mute() -> None:
    """No notice is ever delivered."""
    Dispatcher.run_once = _nothing  # type: ignore[method-assign]


def hasty() -> None:
    """An hour's difference between two clocks is taken for an hour that passed."""

    def uncorrected(event: dict[str, Any], *_: Any) -> dict[str, Any]:
        return event

    assert callable(facts._shifted), "there is nothing of that name to replace"
    facts._shifted = uncorrected  # type: ignore[assignment]


def loopless() -> None:
    """Nothing is a loop."""
    assert callable(detect.is_loop), "there is nothing of that name to replace"  # type: ignore[attr-defined]
    detect.is_loop = lambda *_, **__: False  # type: ignore[attr-defined]


def vague() -> None:
    """Every verdict has the same words."""
    honest = detect.judge

    def judge(*args: Any, **kwargs: Any) -> detect.Finding:
        found = honest(*args, **kwargs)
        fields = {name: getattr(found, name) for name in found.__struct_fields__}
        return detect.Finding(**{**fields, "reason": "something went wrong" if found.verdict else ""})

    assert judgements.judge is honest, "there is nothing of that name to replace"  # type: ignore[attr-defined]
    judgements.judge = judge  # type: ignore[attr-defined]


FAULTS = {"blind": blind, "mute": mute, "hasty": hasty, "loopless": loopless, "vague": vague}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))
