"""What turns the documents as they stand in the repository into a site.

Rules: the README is the front page, the other documents of the root are pages beside those of docs/; a link to a file of the
repository leads to a copy of it, one to a folder to a page that shows what is in it; of a fence's words only the language stays.
A link that leads nowhere fails the build, as mkdocs.yml says.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
TOP = {"README.md": "index.md", "ARCHITECTURE.md": "", "CONTRIBUTING.md": "", "CHANGELOG.md": ""}
SHOWN_BYTES_MAX = 40_000
_LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)]*)?\))")
_PICTURE = re.compile(r'((?:src|srcset)=")([^":]+)(")')
_FENCE = re.compile(r"^( *)```([\w-]+)[^`\n]*$", re.MULTILINE)
_BLOCK = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_CODE = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml", ".json": "json", ".sh": "sh"}


def on_files(files: Files, *, config: Any) -> Files:
    """Add what lies outside of docs/: the documents of the root, and what any document links to."""
    for name, page in TOP.items():
        files.append(File.generated(config, page or name, content=(ROOT / name).read_text(encoding="utf-8")))
    wanted = {target for file in files.documentation_pages() for target in _outside(file)}
    for target in sorted(wanted):
        found = ROOT / target
        if found.is_dir():
            files.append(File.generated(config, f"{target}/index.md", content=_folder(found)))
        elif found.is_file():
            files.append(File.generated(config, target, content=found.read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """The page with links and fences as the site has them."""
    here = _source(page.file)
    parts = _BLOCK.split(_FENCE.sub(r"\1```\2", markdown))
    return "".join(part if part.lstrip().startswith("```") else _relinked(part, here, page.file.src_uri) for part in parts)


def _source(file: File) -> str:
    """Where a page stands in the repository."""
    if file.src_uri == "index.md":
        return "README.md"
    return file.src_uri if file.src_uri in TOP or file.generated_by else f"docs/{file.src_uri}"


def _outside(file: File) -> set[str]:
    """What a document links to that is no document of the site, by its path from the root."""
    here = _source(file)
    text = _BLOCK.sub("", file.content_string)
    targets = {posixpath.normpath(posixpath.join(posixpath.dirname(here), found[2])) for found in _LINK.finditer(text)}
    return {one for one in targets if one not in TOP and not one.startswith(("docs/", "..")) and (ROOT / one).exists()}


def _relinked(text: str, here: str, page: str) -> str:
    """Links, and pictures in HTML, as the site has them."""

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), found[2]))
        if not (ROOT / target).exists():
            return found[0]  # the build says so
        place = TOP.get(target) or target.removeprefix("docs/")
        if (ROOT / target).is_dir():
            place += "/index.md"
        return f"{found[1]}{posixpath.relpath(place, posixpath.dirname(page) or '.')}{found[3]}"

    return _PICTURE.sub(moved, _LINK.sub(moved, text))


def _folder(folder: Path) -> str:
    """A page that shows a folder's files."""
    lines = ["---", "search: {exclude: true}", "---", f"# {folder.relative_to(ROOT)}", ""]
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        text = path.read_text(encoding="utf-8")
        lines += [f"## {path.name}", ""]
        if len(text) > SHOWN_BYTES_MAX:
            lines += [f"{len(text):,} characters: in the repository.", ""]
        else:
            lines += [f"````{_CODE.get(path.suffix, 'text')}", text.rstrip("\n"), "````", ""]
    return "\n".join(lines)
