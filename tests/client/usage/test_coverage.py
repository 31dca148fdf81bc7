"""`looseends doctor --app`: what of an application is covered, and the line that covers the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from looseends.coverage import knows
from looseends.task import INTEGRATIONS

APP = """
import looseends
from starlette.applications import Starlette
{install}
looseends.init(service="shop")
app = Starlette()

@looseends.task(name="mail.send", replay=True)
def send(): ...

@looseends.task
def other(): ...
"""


def doctor(folder: Path, *words: str, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "looseends.cli", *under, "doctor", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, env=dict(os.environ))


def test_what_is_not_covered_is_named_with_the_line_that_covers_it(spool: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP.format(install=""))
    done = doctor(tmp_path, "--app", "shop:app")
    assert done.returncode == 1, done
    row = next(line for line in done.stdout.splitlines() if " starlette " in line)
    assert row.startswith("not covered") and 'add looseends.install("starlette")' in row
    assert "declared     mail.send: replayable\n" in done.stdout
    assert "declared     shop.other: not offered for replay\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("not covered: ") and "starlette" in done.stdout.splitlines()[-1]


def test_what_is_installed_or_instrumented_is_covered(spool: str, tmp_path: Path) -> None:
    every = ", ".join(f'"{name}"' for name in INTEGRATIONS if name in sys.stdlib_module_names or name in ("starlette", "futures"))
    (tmp_path / "shop.py").write_text(APP.format(install=f"looseends.install({every})"))
    done = doctor(tmp_path, "--app", "shop:app")
    assert done.returncode == 0 and done.stdout.endswith("\neverything it uses is covered\n"), done
    (tmp_path / "shop.py").write_text(APP.format(install=""))
    under = ("instrument", "--", sys.executable, "-m", "looseends.cli")
    assert doctor(tmp_path, "--app=shop", under=under).returncode == 0


def test_nothing_is_recorded_and_no_daemon_is_asked(spool: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP.format(install="") + "\nsend()\n")
    assert doctor(tmp_path, "--app", "shop:app").returncode == 1
    assert not Path(spool).exists()


def test_as_json(spool: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP.format(install=""))
    found = json.loads(doctor(tmp_path, "--app", "shop", "--json").stdout)
    assert [row["system"] for row in found["systems"]] == list(INTEGRATIONS)
    assert {"name": "mail.send", "replay": "yes"} in found["declared"]
    assert {row["state"] for row in found["systems"]} <= {"covered", "not covered", "unsupported", "not used"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--app", "no_such_app"), 1, "no_such_app cannot be imported: ModuleNotFoundError: No module named 'no_such_app'"),
        (("--app", "shop:nothing"), 1, "shop has no nothing (it has Starlette, app, looseends, other, send)"),
        (("--app", "broken"), 1, "broken cannot be imported: ZeroDivisionError: division by zero"),
        (("--app", "leaves"), 1, "leaves cannot be imported: SystemExit: 3"),
        (("--app", "no app:x"), 2, "--app is MODULE[:ATTRIBUTE]"),
        (("--app", "shop.py"), 1, "shop.py cannot be imported"),
        (("--app",), 2, "--app needs a value"),
        (("--app", "shop", "more"), 2, "--app MODULE[:ATTRIBUTE] [--json]"),
        (("--app", "shop", "--jsn"), 2, "--app MODULE[:ATTRIBUTE] [--json]"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(spool: str, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    (tmp_path / "shop.py").write_text(APP.format(install=""))
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    done = doctor(tmp_path, *words)
    assert done.returncode == code and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done
    if code == 1:
        assert said in done.stderr
    else:
        assert said in done.stderr or "--json" in done.stderr


def test_versions_are_compared_by_their_numbers() -> None:
    assert knows("5.10.2", (5, 4), (6,)) and knows("5.4", (5, 4), (6,)) and knows("2.2.1rc1", (1, 17), (3,))
    assert not knows("5.3.9", (5, 4), (6,)) and not knows("6.0", (5, 4), (6,)) and not knows("0.9.1", (0, 40), (2,))
    assert knows("", (1,), (2,)) and knows("unknown", (1,), (2,)) and knows("3.11.7", (), ())


def test_a_version_that_nobody_knows_is_unsupported(spool: str, tmp_path: Path) -> None:
    """Its integration leaves it alone, so it must not be shown as covered."""
    (tmp_path / "shop.py").write_text(APP.format(install="import looseends.integrations.starlette as s; s.BELOW = (0, 1)"))
    done = doctor(tmp_path, "--app", "shop:app")
    row = next(line for line in done.stdout.splitlines() if " starlette " in line)
    assert done.returncode == 1 and row.startswith("unsupported") and "below 0.1" in row


def test_the_daemons_own_doctor_is_still_there(spool: str, tmp_path: Path) -> None:
    done = doctor(tmp_path, "--help")
    assert done.returncode == 0 and "looseends doctor --app shop:app" in done.stdout and "--db" in done.stdout
