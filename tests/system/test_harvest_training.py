"""From a real Orthanc to a trained detector: it learns from what was measured, contoured and segmented there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import torch
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from images import marks, phantom
from models.deeplesion.config import DeepLesionConfig, DetectConfig, NetworkConfig, TrainConfig
from models.deeplesion.data import SampleStore
from models.deeplesion.evaluate import detector_of, evaluate
from models.deeplesion.marked import make_marked_samples
from models.deeplesion.run import prepare
from models.deeplesion.table import LesionRow, Split, read_table
from models.deeplesion.train import Run
from models.evaluation.froc import Bootstrap
from node.dicom.marks.deidentify import Mapping
from system import studies
from system.orthanc import Orthanc, Remote
from system.processes import free_port

KEY = 9
"""Of the slices of each patient."""
STEPS = 3
NARROW = NetworkConfig(
    categories=("lung", "liver"),
    widths=(16, 16, 24),
    fpn_channels=16,
    rpn_width=16,
    head_widths=(16, 32),
    mask_width=8,
    detect=DetectConfig(before_nms=100, proposals=24),
)


def patient_of(mapping: Mapping, split: Split) -> str:
    """An ID that is drawn for this split."""
    return next(name for name in (f"HT-{number}" for number in count(1)) if mapping.share(name) == split)


def images_of(folder: Path, patient: str) -> list[Dataset]:
    made = studies.ct_study(folder, name=patient)
    images = []
    for file in made.files:
        ds = dcmread(file)
        ds.PatientID, ds.PatientName = patient, "Zettelmann^Zacharias"
        ds.save_as(file)
        images.append(ds)
    return images


def report(images: list[Dataset]) -> Dataset:
    points = [(40.0, 60.0), (58.0, 60.0), (49.0, 54.0), (49.0, 66.0)]
    return marks.report(images, marks.bidirectional(images[KEY], points), uid="2.25.4712.1")


def structure_set(images: list[Dataset]) -> Dataset:
    """A diamond of 20 by 12 pixels, and the body round it."""
    image = images[KEY]
    spacing, origin = float(image.PixelSpacing[0]), [float(value) for value in image.ImagePositionPatient]
    corners = [(40, 60), (50, 54), (60, 60), (50, 66)]
    drawn = [[origin[0] + x * spacing, origin[1] + y * spacing, origin[2]] for x, y in corners]
    regions = [
        marks.structure("BODY", (image, drawn), interpreted="EXTERNAL"),
        marks.structure("GTV-1", (image, drawn), interpreted="GTV"),
    ]
    return marks.structure_set(images, *regions, uid="2.25.4712.2")


def segmentation(images: list[Dataset]) -> Dataset:
    mask = np.zeros((len(images), 128, 128), dtype=bool)
    mask[KEY, 55:66, 40:60] = True
    described = hd.seg.SegmentDescription(
        1, "1", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, "MANUAL"
    )
    return hd.seg.Segmentation(
        images, mask, "BINARY", [described], studies.uid("segs"), 1, studies.uid("seg"), 1, "m", "m", "1", "1"
    )


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One patient of each split, each with a lesion of another kind of document."""
    folder = tmp_path_factory.mktemp("training")
    mapping = Mapping(folder / "set.mapping.json", bytes(range(32)))
    mapping.save()
    kinds = {Split.TRAIN: report, Split.VALIDATION: structure_set, Split.TEST: segmentation}
    files = []
    for split, document_of in kinds.items():
        patient = patient_of(mapping, split)
        images = images_of(folder / patient, patient)
        document = phantom.save(document_of(images), folder / f"{patient}.dcm")
        files += [document, *sorted((folder / patient).iterdir())]
    with Orthanc(folder / "pacs", node=Remote("NODE", free_port())) as pacs:
        assert len(pacs.upload(files)) == len(kinds)
        command = ["harvest", "--peer", f"PACS@127.0.0.1:{pacs.port}", "--out", str(folder / "set"), "--json"]
        environment = {**os.environ, "PACSNODE_AET": "NODE", "PACSNODE_HOME": str(folder / "home")}
        done = subprocess.run(
            [sys.executable, "-m", "node", *command],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=studies.REPOSITORY,
            env=environment,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["rows"], said["documents"], said["objects_not_sent"]) == (3, 3, 0)
    assert said["refused"] == {"a region that is not said to be a lesion": 1}
    return folder / "set"


def by_origin(harvested: Path) -> dict[str, LesionRow]:
    return {row.origin: row for row in read_table(harvested / "DL_info.csv")}


def test_each_kind_of_document_gives_a_row_that_says_its_kind(harvested: Path) -> None:
    rows = by_origin(harvested)
    assert {origin: row.split for origin, row in rows.items()} == {
        "SR TID 1501": Split.TRAIN,
        "RTSTRUCT (derived)": Split.VALIDATION,
        "SEG (derived)": Split.TEST,
    }
    assert {row.key_slice for row in rows.values()} == {15}  # of 24, from the head
    assert rows["RTSTRUCT (derived)"].points_px == pytest.approx(
        np.array([(40, 60), (60, 60), (50, 54), (50, 66)]), abs=1e-3
    )
    long, short = rows["SEG (derived)"].diameters_px
    assert long == pytest.approx(np.hypot(19, 10), abs=1e-3)
    assert short < long


def test_a_detector_is_trained_three_steps_and_judged_on_it(harvested: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = DeepLesionConfig(network=NARROW)
    samples = make_marked_samples(harvested, tmp_path / "samples", config)
    assert sorted(path.parent.name for path in samples) == ["test", "train", "validation"]
    of = {path.parent.name: [path] for path in samples}
    training = TrainConfig(steps=STEPS, batch=2, crop_px=64, warmup_steps=1)
    learning = Run(config, training, seed=1, device=torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in learning.network.state_dict().items()}
    learning.fit(SampleStore(of["train"], seed=1, categories=2), tmp_path / "checkpoint.pt", lambda *_: None)
    assert learning.step == STEPS
    assert any(not torch.equal(before[name], tensor) for name, tensor in learning.network.state_dict().items())
    network = prepare(learning.smoothed, torch.device("cpu"))
    judged = evaluate({"run": detector_of(network)}, of["test"], of["validation"], bootstrap=Bootstrap(10, 1))
    assert judged.tables[0].rows[0].condition == "1 images, 1 lesions"
