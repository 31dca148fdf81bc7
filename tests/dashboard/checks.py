"""What holds for every page, whatever is stored: valid HTML, nothing inline, forms that the guard will take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import html5lib  # type: ignore[import-untyped]

from looseends_dashboard import assets


def parsed(text: str) -> Element:
    """The document, or an assertion that names the first parse error."""
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    document: Element = parser.parse(text)
    assert not parser.errors, [(place, html5lib.constants.E[code] % data) for place, code, data in parser.errors[:3]]
    return document


def check(text: str) -> Element:
    """What holds for every page, whatever is stored."""
    document = parsed(text)
    for element in _elements(document):
        assert element.tag not in ("style", "iframe", "object", "embed", "base"), element.tag
        assert not [name for name in element.attrib if name == "style" or name.startswith("on")]
        for name in ("href", "src", "action", "formaction"):
            assert element.get(name, "/")[0] in "/#", (element.tag, element.get(name))
        if element.tag == "script":
            assert element.get("src") == assets.href("app.js")
            assert not (element.text or "").strip()
    _check_forms(document)
    ids = [element.get("id") for element in _elements(document) if element.get("id")]
    assert len(ids) == len(set(ids))
    assert len(document.findall(".//h1")) == 1
    return document


def _elements(document: Element) -> Iterator[Element]:
    return (element for element in document.iter() if isinstance(element.tag, str))


def _check_forms(document: Element) -> None:
    keys = []
    for form in document.iter("form"):
        if form.get("method") != "post":
            continue
        fields = {field.get("name"): field.get("value") for field in form.iter("input")}
        assert fields["csrf"] == "csrf-word"
        keys.append(fields["idempotency_key"] or "")
        assert re.fullmatch(r"[\w-]{8,200}", keys[-1])
    assert len(keys) == len(set(keys))
