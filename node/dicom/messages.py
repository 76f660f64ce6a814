"""DIMSE command sets and data sets, and the File Meta Information before a kept data set: bytes, both ways.

source  PS3.7 6.3.1 and Annex E (command sets: group 0000, Implicit VR Little Endian), PS3.10 7.1 (file meta)
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from node.dicom.fragments import Malformed
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

AFFECTED_CLASS = 0x0002
REQUESTED_CLASS = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
RESPONDED_ID = 0x0120
PRIORITY = 0x0700
DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_INSTANCE = 0x1000
REQUESTED_INSTANCE = 0x1001
EVENT_TYPE = 0x1002
ACTION_TYPE = 0x1008

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000

NO_DATA_SET = 0x0101
DATA_SET = 0x0001

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_ELEMENT = struct.Struct("<HHI")


def is_uid(text: str) -> bool:
    """Digits and single dots, at most 64. Leading zeros are let through (scanners send them), paths are not."""
    return 0 < len(text) <= 64 and _UID.fullmatch(text) is not None


class Command:
    """A received command set: value bytes by element number."""

    __slots__ = ("elements",)

    def __init__(self, elements: Mapping[int, bytes]) -> None:
        self.elements = elements

    @classmethod
    def parse(cls, encoded: bytes | bytearray) -> Command:
        """Raises Malformed."""
        elements: dict[int, bytes] = {}
        position = 0
        while position < len(encoded):
            if position + 8 > len(encoded):
                raise Malformed("command set ends within an element")
            group, element, length = _ELEMENT.unpack_from(encoded, position)
            position += 8
            if group != 0 or position + length > len(encoded):
                raise Malformed("command set with a foreign group or a wrong length")
            elements[element] = bytes(encoded[position : position + length])
            position += length
        return cls(elements)

    def number(self, element: int) -> int | None:
        """An unsigned short, None where it is absent or not one."""
        value = self.elements.get(element)
        return int.from_bytes(value, "little") if value is not None and len(value) == 2 else None

    def need(self, element: int) -> int:
        """Raises Malformed where the number is absent."""
        value = self.number(element)
        if value is None:
            raise Malformed(f"command set without (0000,{element:04X})")
        return value

    def text(self, element: int) -> str:
        """Without padding; characters outside ASCII become "?"; empty where absent."""
        return self.elements.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace").replace("\ufffd", "?")

    @property
    def has_data_set(self) -> bool:
        return self.need(DATA_SET_TYPE) != NO_DATA_SET


def short(value: int) -> bytes:
    """US value."""
    return struct.pack("<H", value)


def uid(value: str) -> bytes:
    """UI value, padded to even length."""
    encoded = value.encode("ascii")
    return encoded + b"\0" * (len(encoded) & 1)


def text(value: str, most: int = 64) -> bytes:
    """LO value: ASCII, no backslash, cut, padded."""
    encoded = value.encode("ascii", "replace").replace(b"\\", b"/")[:most]
    return encoded + b" " * (len(encoded) & 1)


def encode_command(elements: Mapping[int, bytes]) -> bytes:
    """The command set with its group length, elements in ascending order."""
    rest = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in sorted(elements.items()))
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(rest)) + rest


def response_to(request: Command, status: int, *, comment: str = "") -> dict[int, bytes]:
    """Elements of the response without data set to a DIMSE request (PS3.7 9.3, 10.3)."""
    elements = {
        COMMAND_FIELD: short(request.need(COMMAND_FIELD) | RESPONSE),
        RESPONDED_ID: short(request.need(MESSAGE_ID)),
        DATA_SET_TYPE: short(NO_DATA_SET),
        STATUS: short(status),
    }
    for source, target in (
        (REQUESTED_CLASS, AFFECTED_CLASS),
        (AFFECTED_CLASS, AFFECTED_CLASS),
        (REQUESTED_INSTANCE, AFFECTED_INSTANCE),
        (AFFECTED_INSTANCE, AFFECTED_INSTANCE),
        (EVENT_TYPE, EVENT_TYPE),
        (ACTION_TYPE, ACTION_TYPE),
    ):
        if source in request.elements:
            elements[target] = request.elements[source]
    if comment:
        elements[ERROR_COMMENT] = text(comment)
    return elements


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_aet: str = "") -> bytes:
    """Preamble, DICM and File Meta Information group, ready to stand before the data set."""

    def element(number: int, vr: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", 2, number, vr, len(value)) + value

    body = (
        struct.pack("<HH2sHIH", 2, 1, b"OB", 0, 2, 0x0100)
        + element(0x02, b"UI", uid(sop_class_uid))
        + element(0x03, b"UI", uid(sop_instance_uid))
        + element(0x10, b"UI", uid(transfer_syntax_uid))
        + element(0x12, b"UI", uid(IMPLEMENTATION_CLASS_UID))
        + element(0x13, b"SH", text(IMPLEMENTATION_VERSION_NAME, 16))
    )
    if source_aet:
        body += element(0x16, b"AE", text(source_aet, 16))
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


def decode_data_set(encoded: bytes, transfer_syntax_uid: str) -> Dataset:
    """A data set of a message, every element read at once. Raises Malformed."""
    syntax = UID(transfer_syntax_uid)
    try:
        data_set = read_dataset(
            BytesIO(encoded), syntax.is_implicit_VR, syntax.is_little_endian, bytelength=len(encoded)
        )
        data_set.decode()
    except Exception as exc:  # the library raises whatever its parser meets
        raise Malformed(f"data set cannot be decoded ({type(exc).__name__})") from exc
    return data_set


def encode_data_set(data_set: Dataset, transfer_syntax_uid: str) -> bytes:
    """Little endian, neither compressed nor deflated."""
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, UID(transfer_syntax_uid).is_implicit_VR
    write_dataset(target, data_set)
    return bytes(target.getvalue())
