"""Radiographs the whole way: routed by a real Orthanc, restored, and back in it beside the original."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.simulation.phantom import chest_phantom
from models.simulation.radiograph import Exposure, chest_radiograph
from node.dicom.synthetic import write_dx
from system import objects, studies
from system.hospital import Hospital, Returned, go_round
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text
from system.orthanc import Orthanc, Remote
from system.processes import free_port

pytestmark = pytest.mark.timeout(600)

SIDE_MM = 400
"""Of radiographs whose headers tell no pixel size, as this site's operator says."""
REAL = "RG1_J2KI.dcm"


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    port, folder = free_port(), tmp_path_factory.mktemp("xray")
    with Orthanc(folder / "pacs", node=Remote("NODE", port)) as pacs:
        site = site_text([PeerEntry("PACS", port=pacs.port, quiet_s=2)], {"*": ["PACS"]})
        env = {
            "PACSNODE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PACSNODE_RADIOGRAPH_SIDE_MM": str(SIDE_MM),
        }
        with Node(folder / "node", site=site, port=port, env=env) as node:
            yield Hospital(pacs, node, Ledger(node))


def simulated(folder: Path) -> studies.Study:
    """A drawn chest behind a detector, at a low dose."""
    chest = chest_phantom(seed=3, shape_zyx=(100, 100, 130), spacing_zyx_mm=(3.0, 3.0, 3.0), nodules=2)
    exposure = Exposure(detector_px=(512, 512), pixel_mm=0.44, photons=900.0)
    pixels = chest_radiograph(chest, seed=3, exposure=exposure)
    path = write_dx(folder, pixels, exposure.pixel_mm)
    return studies.Study(str(dcmread(path).StudyInstanceUID), (path,))


def real(unpacked: Path) -> studies.Study:
    """A computed radiograph of a patient, JPEG 2000."""
    (path,) = [file for file in studies.real_study("odd-dicom", unpacked).files if file.name == REAL]
    return studies.Study(str(dcmread(path).StudyInstanceUID), (path,))


@pytest.fixture(scope="module", params=["simulated", "real"])
def returned(request: pytest.FixtureRequest, hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Returned:
    if request.param == "simulated":
        study = simulated(tmp_path_factory.mktemp("made"))
    else:
        study = real(request.getfixturevalue("unpacked"))
    return go_round(hospital, study, tmp_path_factory.mktemp("back"))


def restored(returned: Returned) -> Dataset:
    """The one derived image of the source's own class."""
    (source,) = returned.sources().values()
    (image,) = [one for one in returned.results.values() if one.SOPClassUID == source.SOPClassUID]
    return image


def test_the_restored_image_stands_beside_the_original_which_is_untouched(returned: Returned) -> None:
    assert returned.unlike_the_sources() == []
    (source,) = returned.sources().values()
    image = restored(returned)
    assert image.SeriesInstanceUID != source.SeriesInstanceUID
    assert list(image.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert image.SeriesDescription.startswith("AI restored")
    assert objects.source_of(image) == source.SOPInstanceUID
    assert (image.Rows, image.Columns, image.PhotometricInterpretation) == (
        source.Rows, source.Columns, source.PhotometricInterpretation,
    )  # fmt: skip


def test_it_changed_something_and_no_coarse_structure(returned: Returned) -> None:
    (source,) = returned.sources().values()
    before, after = (one.pixel_array.astype(float) for one in (source, restored(returned)))
    change = after - before
    assert 0 < np.abs(change).mean() < 0.02 * np.ptp(before)
    blocks = change[: change.shape[0] // 32 * 32, : change.shape[1] // 32 * 32].reshape(
        change.shape[0] // 32, 32, change.shape[1] // 32, 32
    )
    assert np.abs(blocks.mean((1, 3))).max() < 0.01 * np.ptp(before)


def test_the_results_pass_the_conformance_gate(returned: Returned) -> None:
    assert returned.complaints() == []


def test_every_reference_resolves_in_the_pacs(returned: Returned) -> None:
    assert objects.unresolved(returned.results.values(), set(returned.files)) == {}


def test_the_report_says_what_was_done_and_what_must_not_be_read_into_it(returned: Returned) -> None:
    (report,) = returned.of_modality("SR")
    text = " ".join(objects.report_texts(report))
    for said in ("Restoration done", "No finding rests on the restored image", "Research use only"):
        assert said in text
