"""What is installed is what is in the tree, and each way of installing it works with what it declares and nothing more.

The wheel is built once for all workers, from the sdist, as an index would. The virtual environments get their packages
by copying what the running one already has: the closure of the declared requirements, no network, no luck.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import harness
from harness import ROOT
from looseends.lifecycle import VERSION

PACKAGES = {"looseends": "client", "looseends_daemon": "daemon", "looseends_dashboard": "dashboard"}
# One file of each kind that a build can drop in silence.
NEEDED = {
    "looseends/py.typed",
    "looseends_daemon/py.typed",
    "looseends_dashboard/py.typed",
    "looseends_daemon/store/migrations/0001_initial.sql",
}
LIST_MODULES = """
import json, sys
before = set(sys.modules)
import looseends
print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The wheel, built from an sdist of this tree; made by whoever comes first, shared by all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "dist"
    with open(shared.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(shared.glob("*.whl")):
            command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(shared), str(ROOT)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stdout + done.stderr
    return next(shared.glob("*.whl"))


def in_tree() -> set[str]:
    """Every file that belongs into the wheel, by its name there."""
    return {
        str(path.relative_to(ROOT / root))
        for package, root in PACKAGES.items()
        for path in (ROOT / root / package).rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
    }


def test_the_wheel_holds_exactly_what_the_tree_holds(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tree = in_tree()
    assert names == tree, f"only in the tree: {sorted(tree - names)}; only in the wheel: {sorted(names - tree)}"


def test_data_files_of_every_kind_are_there(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= NEEDED
    for kind in (".html", ".css"):
        assert any(name.startswith("looseends_dashboard/") and name.endswith(kind) for name in names), kind


def test_the_source_roots_hold_no_package_of_their_own() -> None:
    """An __init__.py in client/, daemon/ or dashboard/ would shadow an installed package of that name."""
    assert [str(root) for root in PACKAGES.values() if (ROOT / root / "__init__.py").exists()] == []


def test_the_sdist_can_be_tested_by_whoever_gets_it(wheel: Path) -> None:
    import tarfile

    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "Makefile", "CHANGELOG.md", "config.example.toml"}
    wanted |= {"tests/conftest.py", "examples/demo.py", "docs/quickstart.md"}
    assert wanted <= names, sorted(wanted - names)
    assert not [name for name in names if name.startswith((".venv", ".git/")) or "__pycache__" in name]


def requirements(wheel: Path, extra: str) -> Iterator[Requirement]:
    """What the wheel's own metadata asks for with this extra."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    for text in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def closure(wanted: list[Requirement]) -> dict[str, Requirement]:
    """These requirements and all of theirs, by name."""
    found: dict[str, Requirement] = {}
    while wanted:
        requirement = wanted.pop()
        if requirement.name.lower() in found:
            continue
        found[requirement.name.lower()] = requirement
        needed = [Requirement(text) for text in distribution(requirement.name).requires or []]
        for extra in requirement.extras or {""}:
            wanted += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


class Installed:
    """A fresh virtual environment with the wheel and what it declares."""

    def __init__(self, folder: Path, wheel: Path, extra: str = "") -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python, self.script = folder / "bin/python", folder / "bin/looseends"
        site = next(folder.glob("lib/python*/site-packages"))
        for name in closure(list(requirements(wheel, extra))):
            copy(name, site)
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        command = [*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", str(wheel)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def copy(name: str, site: Path) -> None:
    """One installed distribution into another environment."""
    one = distribution(name)
    for file in one.files or []:
        origin, target = Path(str(one.locate_file(file))), (site / str(file)).resolve()
        if target.is_relative_to(site.resolve()) and "__pycache__" not in target.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, target)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    """`pip install looseends`"""
    return Installed(tmp_path_factory.mktemp("bare"), wheel)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    """`pip install "looseends[daemon]"`"""
    return Installed(tmp_path_factory.mktemp("full"), wheel, "daemon")


def test_a_bare_install_asks_for_nothing(wheel: Path) -> None:
    assert [str(one) for one in requirements(wheel, "")] == []


def test_a_bare_install_imports_nothing_but_the_standard_library(bare: Installed, processes: harness.Processes) -> None:
    process = processes.start(bare.python, "-I", "-c", LIST_MODULES)
    assert process.wait() == 0, process.output
    modules = set(json.loads(process.lines[-1]))
    assert "looseends" in modules
    assert modules - {"looseends"} <= sys.stdlib_module_names
    assert not modules & {"asyncio", "sqlite3", "ssl", "multiprocessing"}, "heavy imports in every service"


def test_a_bare_install_says_in_one_line_what_serving_needs(bare: Installed, processes: harness.Processes) -> None:
    process = processes.start(bare.script, "serve")
    assert process.wait() == 2, process.output
    assert len(process.lines) == 1 and 'pip install "looseends[daemon]"' in process.lines[0], process.output


def test_a_bare_install_knows_its_version(bare: Installed, wheel: Path, processes: harness.Processes) -> None:
    process = processes.start(bare.script, "version")
    assert process.wait() == 0, process.output
    assert wheel.name.split("-")[1] in process.output


def test_the_client_names_the_version_that_is_packaged() -> None:
    """It stands in every instance and User-Agent; reading it from the metadata would cost every import."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert declared == VERSION


def test_a_daemon_install_serves_with_what_it_declares(full: Installed, processes: harness.Processes, port: int) -> None:
    process = processes.start(full.script, "serve", "--listen", f"127.0.0.1:{port}")
    process.wait_for(re.escape(f"http://127.0.0.1:{port}"))
    for path in ("/livez", "/sign-in"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            assert answer.status == 200
    assert process.stop() == 0, process.output
    assert "Traceback" not in process.output
