"""docs/configuration.md says of every setting what its declaration says: the same default, the same sentence."""

from __future__ import annotations

import pytest

from harness import ROOT
from looseends_daemon.config.declared import Setting, tables


def row(setting: Setting) -> str:
    """The line of the table about this setting."""
    default = "required" if setting.required else "none" if setting.default is None else f"`{written(setting)}`"
    twin = f", `{setting.name}_file`" if setting.kind.secret else ""
    return f"| `{setting.name}`{twin} | {default} | {setting.kind.doc} |"


def written(setting: Setting) -> str:
    return setting.kind.write(setting.default).replace('""', "") or "computed"


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_the_page_says_what_the_declarations_say(table: object) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    missing = [row(setting) for setting in table.settings if row(setting) not in text]  # type: ignore[attr-defined]
    assert not missing, "docs/configuration.md lacks:\n" + "\n".join(missing)
