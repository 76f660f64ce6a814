"""Radiographs as DICOM files become pictures: dense is bright, pixel size and patient are those of the header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import Result

from images import phantom
from models.diffusionxray.data import load_pictures

Run = Callable[..., Result]


def chest() -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(1).standard_normal((280, 300)), 6)
    return np.rint(2000 + 500 * field / field.std()).clip(0, 4095).astype(np.uint16)


def save(folder: Path, number: int, values: np.ndarray | None = None, **elements: Any) -> None:
    image = phantom.radiograph(chest() if values is None else values, PatientID=f"P-{number}", **elements)
    image.SOPInstanceUID = f"1.2.826.0.1.99.{number}"
    phantom.save(image, folder / f"{number}")


def prepared(run: Run, folder: Path, out: Path) -> Result:
    return run("train", "diffusionxray", "prepare", "--dicom", folder, "--split", "train", "--out", out)


def test_a_negative_in_the_file_is_the_same_picture(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "cr", 1)
    save(tmp_path / "cr", 2, 4095 - chest(), PhotometricInterpretation="MONOCHROME1")
    (tmp_path / "cr" / "notes.txt").write_text("no DICOM")
    done = prepared(run, tmp_path / "cr", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "cr: 2 radiographs" in done.output
    one, other = load_pictures(tmp_path / "run" / "pictures", split="train")
    assert one.spacing_mm == other.spacing_mm == 0.143
    assert one.key != other.key
    assert not {"P-1", "P-2"} & {one.key, other.key}
    np.testing.assert_allclose(one.unit, other.unit, atol=2e-3)
    assert np.corrcoef(one.unit.ravel(), chest().ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"ImagerPixelSpacing": phantom.REMOVED}, "how large a pixel is"),
        ({"ViewPosition": "LL"}, "frontal views"),
        ({"PatientAge": "007Y"}, "younger than 18"),
    ],
)
def test_what_is_not_to_be_learnt_from_is_left_out_with_the_reason(
    run: Run, tmp_path: Path, elements: dict[str, Any], why: str
) -> None:
    save(tmp_path / "cr", 1)
    save(tmp_path / "cr", 2, **elements)
    done = prepared(run, tmp_path / "cr", tmp_path / "run")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "2: left out," in said
    assert why in said
    assert len(load_pictures(tmp_path / "run" / "pictures")) == 1


def test_a_folder_without_radiographs_is_said(run: Run, tmp_path: Path) -> None:
    phantom.save(phantom.header(), tmp_path / "cr" / "1")
    done = prepared(run, tmp_path / "cr", tmp_path / "run")
    assert done.exit_code == 2
    assert "no radiographs as DICOM files in" in " ".join(done.output.split())
