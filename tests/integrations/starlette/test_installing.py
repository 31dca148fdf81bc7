"""What `install("starlette")` says where it cannot do its work: one clear line, and the service goes on."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import Processes

WRONG_VERSION = """
import importlib.metadata as m
real = m.version
m.version = lambda name: "{version}" if name == "starlette" else real(name)
import looseends
looseends.install("starlette")
print("goes on")
"""
TWICE = """
import looseends
looseends.install("starlette")
looseends.install("starlette")
"""
MISSING = """
import importlib.metadata as m
real = m.version
def version(name):
    if name == "starlette": raise m.PackageNotFoundError(name)
    return real(name)
m.version = version
import looseends
try: looseends.install("starlette")
except looseends.UsageError as error: print(error)
"""


def said(processes: Processes, folder: Path, source: str) -> list[str]:
    (folder / "shop.py").write_text(source)
    process = processes.start(sys.executable, "shop.py", cwd=folder)
    assert process.wait() == 0, process.output
    return process.output.splitlines()


def test_what_cannot_be_installed_is_one_line(processes: Processes, tmp_path: Path) -> None:
    for version in ("0.39.2", "2.0.0"):
        assert said(processes, tmp_path, WRONG_VERSION.format(version=version)) == [
            f"looseends: install('starlette'): starlette {version} is installed, known are 0.40 or later, below 2;"
            " its tasks are not recorded",
            "goes on",
        ]
    assert said(processes, tmp_path, TWICE) == [
        "looseends: install('starlette') was called before in this process; nothing changed"
    ]
    assert said(processes, tmp_path, MISSING) == [
        "looseends.install('starlette'): starlette is not installed here; pip install starlette"
    ]
