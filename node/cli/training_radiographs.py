"""Radiographs as DICOM files for a training: grey values, pixel size and patient are those of the header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from models.contract import ModelError
from node.cli.series import short_digest
from node.errors import NotEligible, NotUnderstood

if TYPE_CHECKING:
    from models.diffusionxray.data import LeftOut, Split

PROJECTIONS = ("CR", "DX")


def prepare_radiographs(
    folder: Path, out: Path, *, split: Split | None, left_out: LeftOut, on_progress: Callable[[int, int], None]
) -> int:
    """Frontal chest radiographs of adults below a folder as pictures of high quality; how many were written.

    split       of all of them; None: by patient
    left_out    told which radiograph is not taken, and why; what is no radiograph is passed over
    raises   ModelError     there is not one
    """
    from models.diffusionxray.data import picture_of, save_picture
    from models.diffusionxray.domain import unfit_by_header
    from node.dicom.header import read_header
    from node.dicom.read import read_radiograph

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    written = 0
    for done, path in enumerate(files, start=1):
        on_progress(done, len(files))
        try:
            header = read_header(path)
            if header.modality not in PROJECTIONS:
                continue
            radiograph = read_radiograph(path)
            if reason := unfit_by_header(radiograph):
                raise NotEligible(reason)
            key = short_digest(header.patient_id)
            save_picture(picture_of(radiograph, key, folder.resolve().name, split), out)
        except NotUnderstood:
            continue
        except (NotEligible, ModelError) as error:
            left_out(str(path.relative_to(folder)), str(error))
            continue
        written += 1
    if not written:
        raise ModelError(f"no radiographs as DICOM files in {folder}")
    return written
