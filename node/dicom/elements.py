"""Data elements as plain values, whatever their writers did to them.

Values are taken from the raw bytes, not from pydicom's converted ones: nothing is validated on the way, so a bad
date in a data set cannot stop a good image, and no warning can carry a patient's name into a log.
"""

from __future__ import annotations

import logging
import math
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import charset
from pydicom.charset import decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from node.errors import NotUnderstood

log = logging.getLogger(__name__)

UNREADABLE = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    struct.error,
    zlib.error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    MemoryError,
)
"""What pydicom raises on bytes that are not DICOM, or not whole. OSError is not there: a disk is not the sender."""

# pydicom 3.0.2 believes that Python's codec of ISO-IR 58 (Chinese) takes escape sequences off and puts them on. It does
# neither: they stood in the names of patients, in results too, and what was written in this set had none
charset.handled_encodings = tuple(name for name in charset.handled_encodings if name != "iso_ir_58")

_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q", "US or SS": "H"}
_LONGEST_TEXT = 4096
_PATIENT_NAME = 0x00100010
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

StopWhen = Callable[[Any, str | None, int], bool]


def parse(path: Path, *, stop_at: int | None = None, most_inflated_bytes: int = 1 << 30) -> FileDataset:
    """One file's data set, up to (not including) the first element whose tag is `stop_at` or higher.

    Files without preamble or meta information are taken too: whoever needs a UID finds out whether it is there.

    raises   NotUnderstood   the bytes are not DICOM, or deflated from more than `most_inflated_bytes`
             OSError         the file cannot be read from disk
    """
    stop: StopWhen | None = None if stop_at is None else (lambda tag, _vr, _length: tag >= stop_at)
    with path.open("rb") as file:
        try:
            _demand_modest(file, most_inflated_bytes)
            return read_partial(file, stop_when=stop, force=True)
        except UNREADABLE as exc:
            raise NotUnderstood(f"the file cannot be read as DICOM ({type(exc).__name__})") from exc
        except OSError as exc:
            if exc.errno is not None:
                raise  # the disk's own; pydicom's, on a damaged sequence, has no number
            raise NotUnderstood("the file cannot be read as DICOM (damaged sequence)") from exc


def _demand_modest(file: BinaryIO, most_bytes: int) -> None:
    """A deflated data set may grow a thousandfold when it is read at once: count first (PS3.5 A.5)."""
    head = file.read(144)
    if head[128:140] == b"DICM\x02\x00\x00\x00UL\x04\x00":
        meta = file.read(int.from_bytes(head[140:144], "little") & 0xFFFF)
        if _DEFLATED in meta:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            while (deflated := inflate.unconsumed_tail or file.read(1 << 16)) and not inflate.eof:
                most_bytes -= len(inflate.decompress(deflated, 1 << 20))
                if most_bytes < 0:
                    raise NotUnderstood("the deflated data set is too large when unpacked")
    file.seek(0)


def valid_uid(uid: str) -> bool:
    """Digits and dots, 64 at most: safe as a name and key. Leading zeros (against PS3.5 9.1) are seen and harmless."""
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def raw(dataset: Dataset, tag: int) -> bytes | str | None:
    """The value as it stands in the file; None where the element is absent or empty."""
    element = dataset.get_item(tag) if tag in dataset else None
    value = None if element is None else element.value
    if value is None or isinstance(value, bytes | str):
        return value or None
    if isinstance(value, Sequence):
        return "\\".join(str(part) for part in value)
    return str(value)


def text(dataset: Dataset, tag: int) -> str:
    """Text without padding and control characters (no database takes NUL); "" where absent."""
    value = raw(dataset, tag)
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = _decoded(value[:_LONGEST_TEXT], dataset, person=tag == _PATIENT_NAME)
    return _CONTROL.sub(" ", value[:_LONGEST_TEXT].rstrip("\0")).strip()


def texts(dataset: Dataset, tag: int) -> tuple[str, ...]:
    """All values of a multi-valued text, each without padding; () where absent."""
    whole = text(dataset, tag)
    return tuple(part.strip() for part in whole.split("\\")) if whole else ()


def numbers(dataset: Dataset, tag: int) -> tuple[float, ...]:
    """All values as numbers, from text or binary representation; () where absent, or where one is no finite number."""
    element = dataset.get_item(tag) if tag in dataset else None
    if element is None:
        return ()
    value = raw(dataset, tag)
    if value is None:
        return ()
    if isinstance(value, bytes):
        form = _BINARY.get(_declared_vr(element))
        if form is not None and len(value) % struct.calcsize(form) == 0:
            order = "<" if element.is_little_endian else ">"
            found = struct.unpack(f"{order}{len(value) // struct.calcsize(form)}{form}", value)
            return tuple(float(number) for number in found) if all(map(math.isfinite, found)) else ()
        value = value.decode("latin-1")
    return _parsed(value)


def number(dataset: Dataset, tag: int) -> float | None:
    """The first value as a number; None where there is none."""
    found = numbers(dataset, tag)
    return found[0] if found else None


def integer(dataset: Dataset, tag: int) -> int | None:
    """The first value as a whole number within the range of IS; None where there is none."""
    found = number(dataset, tag)
    return int(found) if found is not None and abs(found) < 2**31 else None


def items(dataset: Dataset, tag: int) -> tuple[Dataset, ...]:
    """Items of a sequence; () where it is absent, no sequence, or cannot be parsed."""
    if tag not in dataset:
        return ()
    try:
        value = dataset[tag].value
    except (*UNREADABLE, OSError) as exc:  # from memory here: no disk can fail
        log.info("sequence (%04X,%04X) cannot be parsed: %s", tag >> 16, tag & 0xFFFF, type(exc).__name__)
        return ()
    if not isinstance(value, Sequence) or isinstance(value, bytes | str):
        return ()
    return tuple(item for item in value if isinstance(item, Dataset))


def item(dataset: Dataset, tag: int) -> Dataset:
    """First item of a sequence; an empty data set where there is none."""
    found = items(dataset, tag)
    return found[0] if found else Dataset()


def _declared_vr(element: Any) -> str:
    vr = element.VR
    if isinstance(element, RawDataElement) and (vr is None or vr in {"UN", "OW", "OB"}):
        try:
            return str(dictionary_VR(element.tag))
        except KeyError:
            return "UN"
    return str(vr)


def _parsed(value: str) -> tuple[float, ...]:
    parts = [part.strip(" \0") for part in value.split("\\")]
    if not value.strip(" \0") or any("_" in part for part in parts):
        return ()
    try:
        found = tuple(float(part) for part in parts)
    except ValueError:
        return ()
    return found if all(map(math.isfinite, found)) else ()


def _decoded(value: bytes, dataset: Dataset, *, person: bool) -> str:
    character_set = dataset.original_character_set or "iso8859"
    encodings = [character_set] if isinstance(character_set, str) else list(character_set)
    try:
        if b"\x1b" not in value:
            return value.decode(encodings[0], errors="replace")
        if person:  # code extensions end at the delimiters of names (PS3.5 6.1.2.5.3)
            return "=".join(decode_bytes(part, encodings, set(PN_DELIMS)) for part in value.split(b"="))
        return str(decode_bytes(value, encodings, set(TEXT_VR_DELIMS)))
    except (LookupError, UnicodeError):
        return value.decode("latin-1")
