from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from models.deeplesion.config import SINGLE, FusionConfig
from models.deeplesion.model import FAST
from models.deeplesion.samples import close, load_volume
from node.cli.training_deeplesion import prepare_volumes, shaped
from node.dicom.slices import patient_key
from node.dicom.synthetic import Labels, write_ct_series
from node.errors import ConfigurationError


def test_series_that_make_a_volume_are_prepared_and_others_left_out(tmp_path: Path) -> None:
    z = np.linspace(-1000, 400, 24, dtype=np.float32)
    voxels = np.broadcast_to(z[:, None, None], (24, 48, 40)).copy()
    paths = write_ct_series(tmp_path / "dicom" / "long", voxels, (2.5, 0.75, 0.75), labels=Labels(patient_id="A"))
    write_ct_series(tmp_path / "dicom" / "short", voxels[:5], (2.5, 0.75, 0.75), labels=Labels(patient_id="B"))
    (tmp_path / "dicom" / "notes.txt").write_text("not DICOM")

    (made,) = prepare_volumes(tmp_path / "dicom", tmp_path / "out", collection="drawn")

    volume = load_volume(made)
    assert volume.hu.shape == (24, 48, 40)
    assert np.abs(volume.hu[:, 0, 0] - z).max() <= 1
    assert volume.spacing_zyx_mm == (2.5, 0.75, 0.75)
    assert volume.patient == patient_key(pydicom.dcmread(paths[0])) == made.name.split("-")[0]


def test_neither_dicom_nor_volumes_is_said_in_words(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("train", "deeplesion", "--data", str(tmp_path / "empty"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "neither prepared volumes" in result.stderr


def test_the_network_is_shaped_by_what_was_asked_and_by_its_samples(tmp_path: Path) -> None:
    assert shaped(FAST.network, tmp_path, single=False, slices=None, fused=False) == FAST.network
    one = shaped(FAST.network, tmp_path, single=True, slices=1, fused=False)
    assert (one.offsets_mm, one.categories, one.fusion) == ((0.0,), SINGLE, None)
    nine = shaped(FAST.network, tmp_path, single=False, slices=9, fused=True)
    assert nine.offsets_mm == (-8, -6, -4, -2, 0, 2, 4, 6, 8)
    assert nine.fusion == FusionConfig()
    close(tmp_path / "samples", 7)
    assert len(shaped(FAST.network, tmp_path, single=False, slices=None, fused=False).categories) == 7
    assert shaped(FAST.network, tmp_path, single=True, slices=None, fused=False).categories == SINGLE


@pytest.mark.parametrize(
    ("slices", "fused", "said"), [(4, False, "odd number"), (None, True, "5 slices"), (6, True, "odd")]
)
def test_slices_that_make_no_sense_are_said(tmp_path: Path, slices: int | None, fused: bool, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        shaped(FAST.network, tmp_path, single=False, slices=slices, fused=fused)
