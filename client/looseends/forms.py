"""Which written form a class of values has: looked up once per class, by identity. Pure.

Rules:

1. A class is known by what it is, never by what it calls itself: the standard library's classes are compared with the very
   objects in `sys.modules`, and nothing of a class is read through its metaclass.
2. No user code runs: fields are read from an instance's own dict or slots, past properties and `__getattr__`.
3. What has no form says why, and what to pass instead.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from .redact import is_secret_class

FORMS_MAX = 2_000
FIELDS_MAX = 1_000
CLASS_TAGS = frozenset(("enum", "flag", "dataclass", "attrs", "namedtuple", "model", "struct"))
"""Tags of the values that only a class which is allowed by name can be rebuilt as."""

_dict_of: Callable[[type], Any] = type.__dict__["__dict__"].__get__
_mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_qualname_of: Callable[[type], str] = type.__dict__["__qualname__"].__get__
_module_of: Callable[[type], Any] = type.__dict__["__module__"].__get__


class Form(NamedTuple):
    """How the values of one class are written. `read` gives what belongs to the tag; `why` is for what has no form."""

    kind: type
    tag: str
    name: str
    read: Callable[[Any], Any]
    why: str = ""


_forms: dict[int, Form] = {}


def form_of(kind: type) -> Form:
    """The form of a class. Never runs code of that class."""
    found = _forms.get(id(kind))  # by id: a metaclass may have a __hash__ or an __eq__ of its own
    if found is None or found.kind is not kind:
        found = _find(kind)
        if len(_forms) >= FORMS_MAX:
            _forms.clear()
        _forms[id(kind)] = found
    return found


def name_of(kind: type) -> str:
    """`module:qualname` of a class, as recorded."""
    module = _module_of(kind)
    return f"{module if type(module) is str else '?'}:{_qualname_of(kind)}"


def is_exactly(kind: type, module: str, name: str) -> bool:
    """Whether this is the class that the loaded module of this name holds under this name."""
    loaded = sys.modules.get(module)
    return type(loaded) is types.ModuleType and loaded.__dict__.get(name) is kind


def _find(kind: type) -> Form:
    name = name_of(kind)
    module, _, qualname = name.partition(":")
    known = _STANDARD.get(name)
    if known is not None and is_exactly(kind, module, qualname):
        return Form(kind, known[0], name, known[1])
    if module == "numpy" and qualname in NUMPY and is_exactly(kind, module, qualname):
        return Form(kind, "numpy", name, _numpy)
    if id(kind) in _CALLABLE or issubclass(kind, type):
        return Form(kind, "ref", name, _itself)
    enum = sys.modules.get("enum")
    if enum is not None and issubclass(kind, enum.Enum):
        return _enum(kind, name, issubclass(kind, enum.Flag))
    if any(is_secret_class(_qualname_of(base).rpartition(".")[2]) for base in _mro_of(kind)):
        return Form(kind, "secret", name, _secret_text)
    if _owner(kind, "__mapper__") is not None or _owner(kind, "_sa_class_manager") is not None:
        return Form(kind, "opaque", name, _nothing, "a row of a database session; pass its id")
    return _with_fields(kind, name) or Form(kind, "opaque", name, _nothing, _why(kind))


def _enum(kind: type, name: str, is_flag: bool) -> Form:
    """A member by its name; a set of flags may have none, and goes by its number."""
    attribute = "_value_" if is_flag else "_name_"
    return Form(kind, "flag" if is_flag else "enum", name, lambda value: object.__getattribute__(value, attribute))


def _with_fields(kind: type, name: str) -> Form | None:
    """Classes whose instances are their fields, and are made again by naming them."""
    for mark, tag, names_of in _CLASSES:
        owner = _owner(kind, mark)
        if owner is None:
            continue
        made_by = "__new__" if tag == "namedtuple" else "__init__"
        if owner is not kind and _owner(kind, made_by) is not _owner(owner, made_by):
            return Form(kind, "opaque", name, _nothing, f"a {tag} whose constructor is its own; pass plain values instead")
        fields = names_of(_dict_of(owner)[mark])
        if fields is None:
            return Form(kind, "opaque", name, _nothing, f"a {tag} that is made from more than its fields (InitVar)")
        if tag == "namedtuple":
            return Form(kind, tag, name, _items_of(fields))
        return Form(kind, tag, name, _reader(kind, fields, tag == "model"))
    struct = getattr(sys.modules.get("msgspec"), "StructMeta", None)
    if struct is not None and type(kind) is struct:
        return Form(kind, "struct", name, _reader(kind, kind.__struct_fields__, False))  # type: ignore[attr-defined]
    return None


def _items_of(fields: tuple[str, ...]) -> Callable[[Any], list[tuple[str, Any]]]:
    return lambda value: list(zip(fields, tuple.__iter__(value), strict=True))


def _dataclass_names(fields: Any) -> tuple[str, ...] | None:
    kinds = {field._field_type.name for field in fields.values()}
    if "_FIELD_INITVAR" in kinds:
        return None
    return tuple(name for name, field in fields.items() if field.init and field._field_type.name == "_FIELD")


def _attrs_names(fields: Any) -> tuple[str, ...]:
    return tuple(field.name for field in tuple.__iter__(fields) if field.init)


_CLASSES: tuple[tuple[str, str, Callable[[Any], tuple[str, ...] | None]], ...] = (
    ("__dataclass_fields__", "dataclass", _dataclass_names),
    ("__attrs_attrs__", "attrs", _attrs_names),
    ("__pydantic_fields__", "model", tuple),
    ("_fields", "namedtuple", tuple),
)


def _reader(kind: type, fields: tuple[str, ...], more: bool) -> Callable[[Any], list[tuple[str, Any]]]:
    """A function that reads these fields of an instance; with `more`, what a model was given beyond them as well."""
    space = _descriptor(kind, "__dict__", types.GetSetDescriptorType)
    slots = {field: _descriptor(kind, field, types.MemberDescriptorType) for field in fields}
    extra = _descriptor(kind, "__pydantic_extra__", types.MemberDescriptorType) if more else None

    def read(value: Any) -> list[tuple[str, Any]]:
        own: dict[str, Any] = space.__get__(value) if space is not None else {}
        found = []
        for field, slot in slots.items():
            found.append((field, own[field] if slot is None else slot.__get__(value)))
        if extra is not None:
            found += _filled(extra, value).items()
        return found

    return read


def _filled(slot: Any, value: Any) -> dict[str, Any]:
    """What a slot holds; of one that was never set, nothing."""
    try:
        return slot.__get__(value) or {}
    except AttributeError:
        return {}


def _descriptor(kind: type, name: str, wanted: type) -> Any:
    """The slot of this name, where the nearest class that has the name has it as a slot."""
    for base in _mro_of(kind):
        found = _dict_of(base).get(name)
        if type(found) is wanted:
            return found
    return None


def _owner(kind: type, name: str) -> type | None:
    """The class that this class has a name from, past its metaclass."""
    return next((base for base in _mro_of(kind) if name in _dict_of(base)), None)


def _nothing(value: Any) -> None:
    return None


def _secret_text(value: Any) -> Any:
    """What a secret type holds, so that it is taken out of messages as well; None where that is not in a plain place."""
    kind = type(value)
    for name in ("_secret_value", "_value"):
        slot = _descriptor(kind, name, types.MemberDescriptorType)
        space = _descriptor(kind, "__dict__", types.GetSetDescriptorType)
        found = slot.__get__(value) if slot is not None else (space.__get__(value) if space is not None else {}).get(name)
        if found is not None:
            return found
    return str.__str__(value) if issubclass(kind, str) else None


def _why(kind: type) -> str:
    for base in (str, int, float, dict, list, tuple, set, bytes):
        if issubclass(kind, base):
            return f"a subclass of {base.__name__} with no written form; pass {base.__name__}(value)"
    return _REASONS.get(id(kind), "which has no written form; pass an id or plain values instead")


_CALLABLE = {id(types.FunctionType), id(types.BuiltinFunctionType)}
_REASONS: dict[int, str] = {
    id(types.MethodType): "a bound method: what it is bound to would have to be recorded with it",
    id(types.GeneratorType): "which is used up by reading it",
    id(types.CoroutineType): "which can run once only",
    id(types.AsyncGeneratorType): "which is used up by reading it",
    id(memoryview): "a view of memory; pass bytes(value)",
}


# --- the standard library and numpy -------------------------------------------------------------------------------


def _str(value: Any) -> str:
    return str(value)


def _iso(value: Any) -> str:
    return str(value.isoformat())


def _itself(value: Any) -> Any:
    return value


def _numpy(value: Any) -> list[str]:
    """The name of the type, and the value: a decimal text (two of a complex number)."""
    name, plain = _qualname_of(type(value)), value.item()
    return [name, repr(plain.real), repr(plain.imag)] if type(plain) is complex else [name, str(plain)]


NUMPY = frozenset(
    [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    + ["float16", "float32", "float64", "complex64", "complex128", "bool", "bool_", "str_"]
)
# Read by `capture.py`, which knows how the value of each tag goes on; rebuilt by `rebuild.py`.
_STANDARD: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "builtins:complex": ("complex", lambda value: [repr(value.real), repr(value.imag)]),
    "builtins:range": ("range", lambda value: [value.start, value.stop, value.step]),
    "builtins:slice": ("slice", lambda value: [value.start, value.stop, value.step]),
    "collections:deque": ("deque", _itself),
    "collections:OrderedDict": ("ordered", _itself),
    "collections:Counter": ("counter", _itself),
    "collections:defaultdict": ("defaultdict", _itself),
    "functools:partial": ("partial", lambda value: [value.func, value.args, value.keywords]),
    "types:SimpleNamespace": ("namespace", lambda value: object.__getattribute__(value, "__dict__")),
    "datetime:datetime": ("datetime", _iso),
    "datetime:time": ("time", _iso),
    "datetime:date": ("date", _iso),
    "datetime:timedelta": ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    "datetime:timezone": ("timezone", lambda value: value.__getinitargs__()),
    "zoneinfo:ZoneInfo": ("zone", lambda value: value.key),
    "uuid:UUID": ("uuid", _str),
    "decimal:Decimal": ("decimal", _str),
    "fractions:Fraction": ("fraction", lambda value: f"{value.numerator}/{value.denominator}"),
    "re:Pattern": ("regex", lambda value: [value.pattern, value.flags]),
    **{f"{module}:PosixPath": ("path", _str) for module in ("pathlib", "pathlib._local")},
    **{f"{module}:PurePosixPath": ("purepath", _str) for module in ("pathlib", "pathlib._local")},
    **{f"{module}:PureWindowsPath": ("winpath", _str) for module in ("pathlib", "pathlib._local")},
    **{f"ipaddress:IPv{n}Address": ("ip", _str) for n in (4, 6)},
    **{f"ipaddress:IPv{n}Network": ("network", _str) for n in (4, 6)},
    **{f"ipaddress:IPv{n}Interface": ("interface", _str) for n in (4, 6)},
}
