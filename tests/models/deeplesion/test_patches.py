import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models.contract import ModelError
from models.deeplesion.config import NetworkConfig
from models.deeplesion.network import build
from models.deeplesion.patches import DetectorFeatures, PatchNet, cut_patches, patches_of_samples, relabel, with_lesions
from models.deeplesion.samples import load_sample
from models.deeplesion.table import Split


def write_sample(path: Path, annotated: list[bool]) -> Path:
    count = len(annotated)
    with path.open("wb") as stream:
        np.savez(
            stream,
            hu=np.arange(3 * 40 * 40, dtype=np.int16).reshape(3, 40, 40),
            labels=np.zeros((40, 40), np.uint8),
            boxes=np.array([(10 + k, 10, 20 + k, 18) for k in range(count)], np.float32).reshape(-1, 4),
            category=np.full(count, 4),
            annotated=np.array(annotated, np.bool_),
            ignore=np.zeros((0, 4), np.float32),
            patient="p",
            family="f",
        )
    return path


def test_a_patch_at_full_size_is_the_image_itself() -> None:
    # Centre (20, 15), larger side 10, context 2: columns 10 to 30, rows 5 to 25, a square whatever the box's shape.
    ramp = np.broadcast_to(np.arange(50, dtype=np.float32) * 10, (2, 40, 50)).copy()
    cut, log_size = cut_patches(ramp, np.array([(15, 12, 25, 18)]), 0.8, side_px=20)
    assert cut.shape == (1, 2, 20, 20)
    assert cut.dtype == torch.int16
    assert torch.equal(cut[0], torch.from_numpy(ramp[:, 5:25, 10:30].astype(np.int16)))
    assert log_size.tolist() == pytest.approx([math.log(8.0)])


def test_beyond_the_image_its_edge_goes_on() -> None:
    image = np.broadcast_to(np.arange(20, dtype=np.float32), (1, 20, 20)).copy()
    cut, _ = cut_patches(image, np.array([(0, 8, 4, 12)]), 1.0, side_px=8)
    assert cut[0, 0, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]


def test_a_box_without_extent_is_refused() -> None:
    with pytest.raises(ModelError, match="no extent"):
        cut_patches(np.zeros((1, 9, 9), np.float32), np.array([(3, 3, 3, 3)]), 1.0)


def test_only_annotated_lesions_of_samples_become_patches(tmp_path: Path) -> None:
    files = [write_sample(tmp_path / "a.npz", [True, False, True]), write_sample(tmp_path / "b.npz", [])]
    patches = patches_of_samples(files, Split.TRAIN, side_px=16)
    assert patches.names == ("a#0", "a#2")
    assert patches.hu.shape == (2, 3, 16, 16)
    assert patches.split == (Split.TRAIN, Split.TRAIN)
    assert patches.log_size.tolist() == pytest.approx([math.log(8.0)] * 2)
    with pytest.raises(ModelError, match="no annotated lesion"):
        patches_of_samples(files[1:], Split.TRAIN)


def test_samples_of_other_slices_do_not_mix(tmp_path: Path) -> None:
    files = [write_sample(tmp_path / "a.npz", [True]), write_sample(tmp_path / "b.npz", [True])]
    with np.load(files[1]) as arrays:
        content = dict(arrays)
    np.savez(files[1], **{**content, "hu": content["hu"][:1]})
    with pytest.raises(ModelError, match="same number of slices"):
        patches_of_samples(files, Split.TRAIN, side_px=16)


def test_samples_with_an_annotated_lesion_are_told_from_others(tmp_path: Path) -> None:
    marks = {"a": [True, False], "b": [False], "c": []}
    files = [write_sample(tmp_path / f"{name}.npz", annotated) for name, annotated in marks.items()]
    assert with_lesions(files) == files[:1]


def test_relabelled_samples_differ_in_their_categories_alone(tmp_path: Path) -> None:
    source = write_sample(tmp_path / "a.npz", [True, False, True])
    (made,) = relabel([source], {"a#0": 2, "a#2": 1}, tmp_path / "out")
    before, after = load_sample(source), load_sample(made)
    assert after.category.tolist() == [2, 0, 1]
    assert np.array_equal(after.hu, before.hu)
    assert np.array_equal(after.boxes, before.boxes)
    assert after.annotated.tolist() == [True, False, True]
    assert (after.patient, after.family) == ("p", "f")
    with pytest.raises(ModelError, match="no label for a#2"):
        relabel([source], {"a#0": 2}, tmp_path / "other")


def test_a_network_sees_the_image_and_the_size() -> None:
    torch.manual_seed(0)
    network = PatchNet(widths=(8, 16)).eval()
    hu = torch.randint(-500, 500, (2, 3, 32, 32)).float()
    small, large = (network(hu, torch.full((2,), math.log(mm))) for mm in (5.0, 60.0))
    assert small.shape == (2, 16)
    assert not torch.allclose(small, large)
    assert not torch.allclose(small[0], small[1])


def test_a_detector_lends_its_backbone() -> None:
    torch.manual_seed(0)
    detector = build(NetworkConfig(widths=(8, 16, 16, 16), fpn_channels=8)).eval()
    hu = torch.randint(-500, 500, (2, 3, 64, 64)).float()
    features = DetectorFeatures(detector)(hu, torch.tensor([math.log(20.0), math.log(40.0)]))
    assert features.shape == (2, 2 * 8 + 1)
    assert features[:, -1].tolist() == pytest.approx([0, math.log(2)], abs=1e-6)
    assert torch.allclose(features[:, :8], detector.features(hu)[0].mean((2, 3)), atol=1e-5)
    with pytest.raises(ModelError, match="2 slices for a network that looks at 3"):
        DetectorFeatures(detector)(hu[:, :2], torch.zeros(2))
