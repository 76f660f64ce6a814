"""Specific Character Set: the source's where it can hold all our text, else UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.charset import convert_encodings, default_encoding

UTF8 = "ISO_IR 192"
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_ASCII_FOR = str.maketrans(
    {
        "→": "->", "−": "-", "–": "-", "—": "-", "×": "x", "±": "+/-", "≤": "<=", "≥": ">=", "…": "...",
        "σ": "sigma", "µ": "u", "μ": "u", "’": "'", "‘": "'", "“": '"', "”": '"', "²": "2", "³": "3", "′": "'",
    }
)  # fmt: skip


def plain(text: str) -> str:
    """Our own words without signs that a Latin or Japanese character set lacks; letters stay as they are."""
    return text.translate(_ASCII_FOR)


def choose_character_set(ds: Any) -> None:
    """Keeps ds.SpecificCharacterSet where every text fits into it, else sets UTF-8 for the whole data set."""
    texts = {text for text in _texts(ds) if not text.isascii()}
    declared = ds.get("SpecificCharacterSet")
    if not texts:
        return
    if not declared or not all(_fits(text, declared) for text in texts):
        ds.SpecificCharacterSet = UTF8


def _fits(text: str, declared: Any) -> bool:
    names = [declared] if isinstance(declared, str) else list(declared)
    # The default repertoire is ASCII (PS3.5 6.1.2.1); the library writes Latin 1 under its name, and for unknown ones.
    encodings = ["ascii" if encoding == default_encoding else encoding for encoding in convert_encodings(names)]
    parts = [part for group in text.split("=") for part in group.split("^")]
    return all(any(_encodes(part, encoding) for encoding in encodings) for part in parts)


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _texts(ds: Any) -> Iterator[str]:
    for element in ds.iterall():
        if element.VR in _TEXT_VRS and element.value:
            values = element.value if element.VM > 1 else [element.value]
            yield from (str(value) for value in values)
