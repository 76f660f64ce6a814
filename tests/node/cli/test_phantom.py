from __future__ import annotations

import numpy as np
import pytest

from node.cli import phantom
from node.dicom.read import read_radiograph, read_volume


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> phantom.PhantomStudies:
    small = pytest.MonkeyPatch()
    for name, value in {
        "SIDE_PX": 64,
        "SPACING_MM": (1.0, 6.0, 6.0),
        "_BEAM": phantom.ParallelBeam(views=20, channels=96, pitch_mm=4.0),
        "_COARSE_SHAPE": (24, 24, 32),
        "_COARSE_SPACING_MM": (15.0, 15.0, 13.0),
    }.items():
        small.setattr(phantom, name, value)
    progress: list[tuple[int, int]] = []
    try:
        folder = tmp_path_factory.mktemp("phantom")
        studies = phantom.make_studies(folder, slices=4, seed=3, on_progress=lambda *at: progress.append(at))
    finally:
        small.undo()
    assert progress == [(4, 5), (5, 5)]
    return studies


def test_the_ct_is_the_phantom_with_noise_and_no_shift(made: phantom.PhantomStudies) -> None:
    volume = read_volume([path for path in made.files if path.name.startswith("ct-")])
    noise = (volume.voxels - np.clip(made.truth, -1024, 3071))[made.truth > -500]
    assert volume.voxels.shape == made.truth.shape
    assert 1 < noise.std() < 100
    assert abs(noise.mean()) < noise.std() / 3
    assert volume.acquisition.exposure_mas == pytest.approx(phantom.DOSE * phantom.FULL_DOSE_MAS)


def test_the_radiograph_shows_dark_lungs_beside_a_bright_middle(made: phantom.PhantomStudies) -> None:
    (path,) = [path for path in made.files if path.name.startswith("dx-")]
    image = read_radiograph(path)
    rows, columns = image.pixels.shape
    band = image.pixels[rows // 3 : rows // 2]
    middle = band[:, columns // 2 - 20 : columns // 2 + 20].mean()
    lungs = [band[:, at - 20 : at + 20].mean() for at in (columns // 4, 3 * columns // 4)]
    assert middle > max(lungs)


def test_the_radiograph_is_fit_for_restoration_by_its_header(made: phantom.PhantomStudies) -> None:
    (path,) = [path for path in made.files if path.name.startswith("dx-")]
    image = read_radiograph(path)
    assert image.spacing_yx_mm == pytest.approx((0.423, 0.423), abs=0.001)
    assert (image.view, image.for_presentation, image.acquisition.patient_age_years) == ("PA", True, None)


def test_patient_and_order_say_that_nobody_was_imaged(made: phantom.PhantomStudies) -> None:
    import pydicom

    for path in made.files:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert (header.PatientName, header.PatientID) == ("PHANTOM^CHEST", "PHANTOM-3")
        assert "simulated" in header.StudyDescription
