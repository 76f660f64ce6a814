from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.lidnet import FAST
from node.cli.training_lidnet import config_of, prepared
from node.dicom.synthetic import Labels, write_ct_series
from node.errors import ConfigurationError


def slices_of(folder: Path, *patients: str) -> Path:
    folder.mkdir()
    for patient in patients:
        np.savez(folder / f"{patient}-0.npz", patient=np.array(patient))
    return folder


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    voxels = np.zeros((2, 256, 256), np.float32)
    for patient in ("A", "B"):
        write_ct_series(tmp_path / "dicom" / patient, voxels, (3.0, 1.0, 1.0), labels=Labels(patient_id=patient))
    return tmp_path / "dicom"


def test_dicom_files_are_prepared_once(dicom: Path, tmp_path: Path) -> None:
    made = prepared(dicom, tmp_path / "out")
    assert made == tmp_path / "out" / "slices"
    assert len(list(made.glob("*.npz"))) == 4
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert prepared(dicom, tmp_path / "out") == made
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before
    assert prepared(made, tmp_path / "elsewhere") == made


def test_a_folder_without_ct_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="neither prepared slices"):
        prepared(tmp_path / "empty", tmp_path / "out")


def test_patients_of_the_shipped_evaluation_stay_held_out_wherever_they_are(tmp_path: Path) -> None:
    known = FAST.held_out[0]
    assert config_of(slices_of(tmp_path / "a", "p1", known, "p2"), None).held_out == (known,)
    assert config_of(slices_of(tmp_path / "b", *(f"p{n}" for n in range(6))), None).held_out == ("p0", "p5")
    assert config_of(slices_of(tmp_path / "c", "p1", "p2"), ["p2"]).held_out == ("p2",)


def test_a_patient_who_is_not_there_or_all_of_them_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no slices of p9"):
        config_of(slices_of(tmp_path / "a", "p1", "p2"), ["p9"])
    with pytest.raises(ConfigurationError, match="nothing is left to train on"):
        config_of(slices_of(tmp_path / "b", "p1"), None)


def test_what_cannot_be_trained_on_or_measured_is_said_in_words(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    where = ["--data", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    for command in ("train", "evaluate"):
        result = run(command, "lidnet", *where)
        assert result.exit_code == 2
        assert "neither prepared slices" in result.stderr


def test_weights_of_another_network_are_refused(run, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"other": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    where = ["--data", str(slices_of(tmp_path / "a", "p1", "p2")), "--out", str(tmp_path)]
    result = run("evaluate", "lidnet", *where, "--weights", tmp_path / "w.safetensors")
    assert result.exit_code == 2
    assert "not the weights of this network" in " ".join(result.stderr.split())
