"""Joint samples and the ablation: the truth in them, and a judgement that is fair to every arm."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.deeplesion.config import DeepLesionConfig, NetworkConfig
from models.deeplesion.network import build as build_detector
from models.lidnet import ablation
from models.lidnet.ablation import AblationConfig, compare, run
from models.lidnet.collaborate import CollaborationConfig
from models.lidnet.config import NetworkConfig as DenoiserConfig
from models.lidnet.joint import JointConfig, JointStore, load_joint, make_joint_samples
from models.lidnet.network import build as build_denoiser

DETECTOR = DeepLesionConfig(
    network=NetworkConfig(
        widths=(16, 16),
        fpn_channels=16,
        rpn_width=16,
        head_widths=(16, 16),
        mask_width=16,
        anchor_sides=((16.0,), (32.0,)),
    )
)
TINY = JointConfig(families=("anthropomorphic-chest",), cases=2, slices_per_case=2, views=64)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    return make_joint_samples(tmp_path_factory.mktemp("joint"), TINY, DETECTOR, seed=1)


def test_lower_dose_adds_noise_to_the_full_dose_and_nothing_else(files) -> None:
    sample = load_joint(files[0])
    assert np.array_equal(sample.low(1.0), sample.full)
    quarter, tenth = (sample.low(fraction) - sample.full for fraction in (0.25, 0.1))
    assert 1.5 < tenth.std() / quarter.std() < 3
    assert abs(quarter.mean()) < 0.1 * quarter.std()
    middle = len(sample.full) // 2
    body = sample.full[middle] > -200
    assert abs(np.corrcoef(quarter[middle][body], sample.full[middle][body])[0, 1]) < 0.1


def test_the_same_seed_makes_the_same_samples_and_what_is_there_is_kept(files, tmp_path) -> None:
    again = make_joint_samples(tmp_path, TINY, DETECTOR, seed=1)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]
    again[0].write_bytes(b"kept")
    assert make_joint_samples(tmp_path, replace(TINY, cases=1), DETECTOR, seed=1)[0].read_bytes() == b"kept"


def test_crops_hold_whole_boxes_where_the_lesions_are(files) -> None:
    store = JointStore(files, TINY, seed=1, single=True)
    seen = 0
    for step in range(8):
        batch = store.batch(step, size=2, crop_px=224, noise_floor_hu=15)
        assert batch.low.shape == batch.full.shape == (2, 3, 224, 224)
        for target in batch.targets:
            assert ((target.boxes >= 0) & (target.boxes <= 224)).all()
            assert not target.category.any()
            seen += len(target.boxes)
    assert seen > 0
    again = store.batch(3, size=2, crop_px=224, noise_floor_hu=15)
    assert torch.equal(again.low, store.batch(3, size=2, crop_px=224, noise_floor_hu=15).low)


def test_measures_of_a_known_error(files) -> None:
    sample = next(load_joint(path) for path in files if len(load_joint(path).boxes))
    reference = sample.full[len(sample.full) // 2]
    same = compare(reference, sample)
    assert np.isinf(same["PSNR (dB)"])
    assert same["ROI RMSE (HU)"] == 0
    shifted = compare(reference + 7, sample)
    assert shifted["ROI RMSE (HU)"] == pytest.approx(7, abs=1e-3)
    assert shifted["CNR"] == pytest.approx(same["CNR"], rel=1e-3)


def test_an_arm_that_changes_nothing_is_the_low_dose_input(tmp_path, monkeypatch) -> None:
    """An untrained denoiser removes nothing, and with a learning rate of 0 it stays so."""
    torch.manual_seed(2)
    config = AblationConfig(
        CollaborationConfig(
            rounds=1, denoiser_steps=1, detector_steps=1, batch=1, crop_px=192, denoiser_rate=0, balance_batches=1
        ),
        arms=("A1", "A6"),
        seeds=(1,),
        training=TINY,
        test=replace(TINY, cases=2, slices_per_case=1),
        fractions=(0.25,),
    )
    networks = (build_denoiser(DenoiserConfig(widths=(16, 16))), build_detector(DETECTOR.network))
    judge = build_detector(DETECTOR.network).eval()
    arms, differences = run(*networks, judge, tmp_path, config, DETECTOR)
    by_method = {row.method: row.values for row in arms.rows}
    assert list(by_method) == ["A0", "A1", "A6", "full dose"]
    assert by_method["A0"] == by_method["A1"] == by_method["A6"]
    assert by_method["full dose"]["ROI RMSE (HU)"].mean == 0
    assert by_method["A0"]["ROI RMSE (HU)"].mean > 1
    assert [row.method for row in differences.rows] == ["A1 − A0", "A6 − A1"]
    assert all(value.mean == 0 for row in differences.rows for value in row.values.values())
    monkeypatch.setattr(ablation.Collaboration, "_denoiser_step", lambda _self: pytest.fail("trained again"))
    again, _ = run(*networks, judge, tmp_path, config, DETECTOR)
    assert again.data() == arms.data()
