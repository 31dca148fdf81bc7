"""The documents as a site: built strictly, every page reached, nothing asked of other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT

NEEDED = ("docs", "examples", "deploy", "mkdocs.yml", "config.example.toml", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")


def build(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    env = {"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What a build reads, to be spoiled."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in (*NEEDED, "CHANGELOG.md"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def test_the_site_is_built_strictly_and_every_document_is_a_page_of_it(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} | {"index", "CONTRIBUTING", "CHANGELOG"} <= pages
    front = (tmp_path / "site/index.html").read_text()
    assert {f'href="{name}.html"' for name in pages - {"404", "index"}} <= set(re.findall(r'href="[\w-]+\.html"', front))
    pictures = re.findall(r'(?:src|srcset)="([^":]+\.png)"', front)
    assert pictures and all((tmp_path / "site" / name).is_file() for name in pictures), pictures
    assert "LooseEndOpen" in (tmp_path / "site/examples/prometheus/index.html").read_text()
    assert '<div class="highlight">' in front and "norun=" not in front, "fences are read, and their words are not shown"


def test_a_reader_of_the_site_asks_no_other_host_for_anything(tmp_path: Path) -> None:
    assert build(ROOT, tmp_path / "site").returncode == 0
    texts = [path.read_text() for path in (tmp_path / "site").rglob("*.html")]
    asked = [tag for text in texts for tag in re.findall(r"<(?:script|link|img|iframe)[^>]*https?://[^>]*>", text)]
    assert not asked


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("docs/quickstart.md", "\n[gone](no-such-page.md)\n", "no-such-page.md"),
        ("docs/quickstart.md", "\n[gone](replay.md#no-such-heading)\n", "no-such-heading"),
        ("README.md", "\n[gone](docs/no-such-page.md)\n", "no-such-page.md"),
        ("docs/forgotten.md", "# In no list\n", "forgotten.md"),
    ],
)
def test_a_planted_fault_fails_the_build(copy: Path, tmp_path: Path, file: str, text: str, said: str) -> None:
    with (copy / file).open("a") as page:
        page.write(text)
    done = build(copy, tmp_path / "site")
    assert done.returncode != 0 and said in done.stdout + done.stderr
