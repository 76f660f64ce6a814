"""A folder of files from anywhere: which of them are DICOM objects, ready to be sent as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import MediaStorageDirectoryStorage

from node.dicom.elements import parse, text, valid_uid
from node.dicom.header import transfer_syntax
from node.dicom.send import Outgoing
from node.errors import NotUnderstood

_AFTER_IDENTITY = 0x0020000F


@dataclass(frozen=True)
class Found:
    """One file. `outgoing` None: not an object to send, and why."""

    path: Path
    outgoing: Outgoing | None
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    reason: str = ""


def scan(folder: Path) -> Iterator[Found]:
    """Every file below, in the order of names; a single file stands for itself. Links out of it are not followed."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        yield _look(path)


def _look(path: Path) -> Found:
    try:
        dataset = parse(path, stop_at=_AFTER_IDENTITY)
    except NotUnderstood as exc:
        return Found(path, None, reason=exc.reason)
    except OSError as exc:
        return Found(path, None, reason=f"cannot be read ({exc.strerror})")
    if text(dataset.file_meta, 0x00020002) == str(MediaStorageDirectoryStorage):
        return Found(path, None, reason="a DICOMDIR: an index, not an image")
    sop_class_uid, sop_instance_uid = (text(dataset, tag) for tag in (0x00080016, 0x00080018))
    if not (sop_class_uid and sop_instance_uid and valid_uid(sop_class_uid) and valid_uid(sop_instance_uid)):
        return Found(path, None, reason="not a DICOM object: no SOP Class UID and SOP Instance UID")
    return Found(
        path,
        Outgoing(path, sop_class_uid, sop_instance_uid, transfer_syntax(dataset)),
        study_instance_uid=text(dataset, 0x0020000D),
        series_instance_uid=text(dataset, 0x0020000E),
    )
