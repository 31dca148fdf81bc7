"""A Chromium for the browser tests: the developer's own, the system's, or one out of the npm registry.

Looked for in this order: LOOSEENDS_CHROMIUM; chromium, chromium-browser, google-chrome on PATH; the npm package
`@sparticuz/chromium`, which needs no root and brings its libraries, kept unpacked in the cache folder. Where none is
found, the reason says what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGE = "@sparticuz/chromium@147"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FETCH_S_MAX = 300
_UNBROTLI = """
const zlib = require("zlib"), fs = require("fs"), [packed, plain] = process.argv.slice(1);
fs.writeFileSync(plain, zlib.brotliDecompressSync(fs.readFileSync(packed)));
"""


class Chromium(NamedTuple):
    """Where it lies, and the folder of the libraries it brought along (empty: the system's)."""

    path: str
    libraries: str = ""

    def environment(self) -> dict[str, str]:
        """What it is started with."""
        own = {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}
        return {**os.environ, **own}


class NoChromium(Exception):
    """None was found; the message says what to do."""


def find() -> Chromium:
    """The browser to test with. Raises NoChromium."""
    named = os.environ.get("LOOSEENDS_CHROMIUM")
    if named:
        if not os.access(named, os.X_OK):
            raise NoChromium(f"LOOSEENDS_CHROMIUM={named} is no program that can be run")
        return Chromium(named)
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Chromium(found)
    return _from_npm()


def _from_npm() -> Chromium:
    folder = _cache() / PACKAGE.rsplit("@", 1)[1]
    found = Chromium(str(folder / "chromium"), str(folder / "lib"))
    if not os.access(found.path, os.X_OK):
        if shutil.which("npm") is None:
            raise NoChromium(
                f"no {', '.join(NAMES)} on PATH, and no npm to fetch {PACKAGE}; install one, or set LOOSEENDS_CHROMIUM"
            )
        _unpack(folder)
    return found


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "looseends-tests" / "chromium"


def _unpack(folder: Path) -> None:
    """Fetch and unpack beside the folder, then move it in place in one step: a broken fetch leaves nothing behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        try:
            fetch = ["npm", "pack", PACKAGE, "--silent", "--pack-destination", work]
            subprocess.run(fetch, check=True, capture_output=True, timeout=FETCH_S_MAX, cwd=work)
        except (subprocess.SubprocessError, OSError) as error:
            raise NoChromium(f"npm could not fetch {PACKAGE}: {error}") from error
        with tarfile.open(next(Path(work).glob("*.tgz"))) as package:
            package.extractall(work, filter="data")
        made = Path(work) / "made"
        made.mkdir()
        binaries = Path(work) / "package" / "bin"
        _unbrotli(binaries / "chromium.br", made / "chromium")
        (made / "chromium").chmod(0o755)
        _unbrotli(binaries / "al2023.tar.br", Path(work) / "libraries.tar")
        with tarfile.open(Path(work) / "libraries.tar") as libraries:
            libraries.extractall(made, filter="data")
        if not folder.exists():
            made.rename(folder)


def _unbrotli(packed: Path, plain: Path) -> None:
    """By the node that playwright's wheel carries: the standard library has no brotli."""
    node = Path(playwright.__file__).parent / "driver" / "node"
    subprocess.run([str(node), "-e", _UNBROTLI, str(packed), str(plain)], check=True, timeout=120)
