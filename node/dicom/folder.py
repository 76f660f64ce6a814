"""A folder of files from anywhere: which of them are DICOM objects, ready to be sent as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from node.dicom.send import Outgoing

_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID")


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
        data_set = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_IDENTITY))
        meta = data_set.file_meta
        if meta.MediaStorageSOPClassUID == MediaStorageDirectoryStorage:
            return Found(path, None, reason="a DICOMDIR: an index, not an image")
        outgoing = Outgoing(
            path=path,
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
        )
    except InvalidDicomError:
        return Found(path, None, reason="not a DICOM file (no DICM prefix)")
    except AttributeError:
        return Found(path, None, reason="its File Meta Information does not say what it is")
    except OSError as exc:
        return Found(path, None, reason=f"cannot be read ({exc.strerror})")
    except (ValueError, KeyError, NotImplementedError, EOFError) as exc:  # what the parser meets in broken files
        return Found(path, None, reason=f"a broken DICOM file ({type(exc).__name__})")
    study, series = (str(data_set.get(keyword, "")) for keyword in _IDENTITY)
    return Found(path, outgoing, study_instance_uid=study, series_instance_uid=series)
