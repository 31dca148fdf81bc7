"""What `settings` declares, as data to walk over: the one place that looks at annotations."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from looseends_daemon.config.kinds import Kind
from looseends_daemon.config.settings import Section, Settings


class Setting(NamedTuple):
    """One key: its name, kind and default; `required` keys have no default."""

    name: str
    kind: Kind
    default: Any
    required: bool


class Table(NamedTuple):
    """One section of the file; `array`: it stands as [[name]], any number of times. `field` is its name in Settings."""

    name: str
    field: str
    section: type[Section]
    array: bool
    settings: tuple[Setting, ...]

    @property
    def doc(self) -> str:
        """The one sentence about this section."""
        return (self.section.__doc__ or "").splitlines()[0]

    def keys(self) -> dict[str, Setting]:
        """Every key this section takes, `*_file` twins apart."""
        return {setting.name: setting for setting in self.settings}


@cache
def tables() -> tuple[Table, ...]:
    """All sections, in the order in which they are declared."""
    hints = get_type_hints(Settings)
    return tuple(_table(field.encode_name, field.name, hints[field.name]) for field in msgspec.structs.fields(Settings))


def _table(name: str, field: str, hint: Any) -> Table:
    array = get_origin(hint) is tuple
    section = get_args(hint)[0] if array else hint
    hints = get_type_hints(section, include_extras=True)
    settings = tuple(
        Setting(one.name, get_args(hints[one.name])[1], None if one.required else one.default, one.required)
        for one in msgspec.structs.fields(section)
    )
    return Table(name, field, section, array, settings)
