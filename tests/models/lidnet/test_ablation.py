"""Joint samples and the ablation: the truth in them, and a judgement that is fair to every arm."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.contract import ModelError
from models.deeplesion.config import DataConfig, DeepLesionConfig, NetworkConfig
from models.deeplesion.network import Detections
from models.deeplesion.network import build as build_detector
from models.evaluation.bootstrap import Interval
from models.evaluation.table import Row
from models.lidnet import ablation, joint
from models.lidnet.ablation import AblationConfig, run
from models.lidnet.collaborate import CollaborationConfig
from models.lidnet.config import NetworkConfig as DenoiserConfig
from models.lidnet.joint import JointConfig, JointStore, load_joint, make_joint_samples
from models.lidnet.judgement import _outcome, compare
from models.lidnet.network import build as build_denoiser

DETECTOR = DeepLesionConfig(
    network=NetworkConfig(
        widths=(16, 16),
        fpn_channels=16,
        rpn_width=16,
        head_widths=(16, 16),
        mask_width=16,
        anchor_sides=((16.0,), (32.0,)),
    ),
    data=DataConfig(shape_zyx=(8, 240, 240), pixels_mm=(1.3, 1.4), steps_mm=(2.5,)),
)
NO_BOX, NO_CATEGORY = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
TINY = JointConfig(families=("anthropomorphic-chest",), cases=2, slices_per_case=2, views=64)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    return make_joint_samples(tmp_path_factory.mktemp("joint"), TINY, DETECTOR, seed=1)


def stock(out, files, config) -> None:
    """The same samples under the names of all that a run wants, so that it need not draw any."""
    wanted = {"training": config.training, config.judged_on: config.test, "healthy": config.healthy}
    for what, some in wanted.items():
        (out / what).mkdir(parents=True)
        for number in range(some.cases):
            for index in range(some.slices_per_case):
                sample = load_joint(files[number * TINY.slices_per_case + index])
                if some.healthy:
                    sample = replace(
                        sample, labels=0 * sample.labels, boxes=NO_BOX, ignore=NO_BOX, category=NO_CATEGORY
                    )
                case = ablation.FIRST_CASE[what] + number
                joint._save(out / what / f"anthropomorphic-chest.{case:03d}-{index:02d}.npz", sample)


def test_lower_dose_adds_noise_to_the_full_dose_and_nothing_else(files) -> None:
    sample = load_joint(files[0])
    assert np.array_equal(sample.low(1.0), sample.full)
    quarter, tenth = (sample.low(fraction) - sample.full for fraction in (0.25, 0.1))
    assert 1.5 < tenth.std() / quarter.std() < 3
    assert abs(quarter.mean()) < 0.1 * quarter.std()
    middle = len(sample.full) // 2
    body = sample.full[middle] > -200
    assert abs(np.corrcoef(quarter[middle][body], sample.full[middle][body])[0, 1]) < 0.1


def test_the_same_seed_makes_the_same_samples_whoever_makes_them_and_what_is_there_is_kept(files, tmp_path) -> None:
    again = make_joint_samples(tmp_path, TINY, DETECTOR, seed=1, workers=2)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]
    again[0].write_bytes(b"kept")
    assert make_joint_samples(tmp_path, replace(TINY, cases=1), DETECTOR, seed=1)[0].read_bytes() == b"kept"


def test_patients_without_lesions_have_none_and_are_others(files, tmp_path) -> None:
    healthy = replace(TINY, cases=1, slices_per_case=1, healthy=True)
    [path] = make_joint_samples(tmp_path, healthy, DETECTOR, seed=1, first_case=ablation.FIRST_CASE["healthy"])
    sample = load_joint(path)
    assert len(sample.boxes) == len(sample.ignore) == 0
    assert not sample.labels.any()
    assert sample.patient not in {load_joint(other).patient for other in files}


def test_a_detection_on_a_grazed_lesion_is_neither_right_nor_wrong(files) -> None:
    lesion, grazed, nowhere = ([20.0, 20, 50, 50], [80.0, 80, 100, 100], [120.0, 20, 150, 40])
    sample = replace(
        load_joint(files[0]),
        boxes=np.array([lesion], np.float32),
        ignore=np.array([grazed], np.float32),
        category=np.zeros(1, np.int64),
    )
    boxes, scores = torch.tensor([lesion, grazed, nowhere]), torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64)
    outcome = _outcome(sample, Detections(boxes, scores, torch.zeros(3, dtype=torch.int64), torch.ones(3, 1)))
    assert outcome.found_at.tolist() == [0.9]
    assert outcome.false.tolist() == [0.7]


def test_a_square_is_cut_around_the_first_lesion_with_its_truth(files) -> None:
    first, cut, near = ([100.0, 60, 130, 80], [160.0, 60, 200, 90], [70.0, 90, 80, 100])
    whole = load_joint(files[0])
    labels = np.zeros_like(whole.labels)
    labels[60:80, 100:130], labels[60:90, 160:200], labels[90:100, 70:80] = 1, 2, 3
    boxes, categories = np.array([first, cut, near], np.float32), np.array([3, 1, 2])
    sample = replace(whole, boxes=boxes, category=categories, ignore=NO_BOX, labels=labels)
    ours, rows, columns = sample.square(100), slice(20, 120), slice(65, 165)
    assert np.array_equal(ours.full, sample.full[:, rows, columns])
    assert np.array_equal(ours.low(0.1), sample.low(0.1)[:, rows, columns])
    assert np.array_equal(ours.body, sample.body[rows, columns])
    assert ours.boxes.tolist() == [[35, 40, 65, 60], [5, 70, 15, 80]]
    assert ours.category.tolist() == [3, 2]
    assert ours.ignore.tolist() == [[95, 40, 100, 70]]
    assert np.array_equal(ours.labels, np.array([0, 1, 0, 2])[labels[rows, columns]])
    with pytest.raises(ModelError, match="does not fit"):
        sample.square(4000)


def test_a_square_without_lesions_lies_on_the_patient(files) -> None:
    sample = load_joint(files[0])
    healthy = replace(sample, labels=0 * sample.labels, boxes=NO_BOX, category=NO_CATEGORY, ignore=NO_BOX)
    assert healthy.square(96).body.mean() > 0.5


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


def test_a_crop_is_cut_from_the_sample_in_its_file(files) -> None:
    sample, noise_floor_hu, side = load_joint(files[0]), 15.0, 200
    batch = JointStore(files[:1], TINY, seed=2, single=True).batch(
        5, size=1, crop_px=side, noise_floor_hu=noise_floor_hu
    )
    found = [
        (top, left)
        for top in range(sample.full.shape[1] - side + 1)
        for left in range(sample.full.shape[2] - side + 1)
        if sample.full[0, top, left] == batch.full[0, 0, 0, 0]
        and np.array_equal(sample.full[:, top : top + side, left : left + side], batch.full[0])
    ]
    [(top, left)] = found
    noise = (batch.low - batch.full)[0]
    assert batch.weight.item() == pytest.approx(1 / (float(noise.var()) + noise_floor_hu**2), rel=1e-3)
    window = (slice(None), slice(top, top + side), slice(left, left + side))
    quantum, electronic = sample.noise.quantum[window], sample.noise.electronic[window]
    parts = torch.stack([quantum.flatten(), electronic.flatten()], 1)
    weights = torch.linalg.lstsq(parts, noise.flatten()[:, None]).solution
    torch.testing.assert_close((parts @ weights)[:, 0], noise.flatten(), atol=1e-2, rtol=1e-3)


def test_measures_of_a_known_error(files) -> None:
    sample = next(load_joint(path) for path in files if len(load_joint(path).boxes))
    reference = sample.full[len(sample.full) // 2]
    same = compare(reference, sample)
    assert np.isinf(same["PSNR (dB)"])
    assert same["ROI RMSE (HU)"] == 0
    assert same["ROI SSIM"] == pytest.approx(1)
    assert same["lesion bias (HU)"] == same["lesion contrast (HU)"] == 0
    shifted = compare(reference + 7, sample)
    assert shifted["ROI RMSE (HU)"] == pytest.approx(7, abs=1e-3)
    assert shifted["ROI SSIM"] < 1
    assert shifted["CNR"] == pytest.approx(same["CNR"], rel=1e-3)
    assert shifted["lesion bias (HU)"] == pytest.approx(7, abs=1e-3)
    assert shifted["lesion contrast (HU)"] == pytest.approx(0, abs=1e-3)


def test_a_lesion_that_fades_or_is_painted_is_told_bright_or_dark(files) -> None:
    sample = next(load_joint(path) for path in files if len(load_joint(path).boxes))
    lesion = replace(sample, boxes=sample.boxes[:1])
    inside = sample.labels == 1
    for sign in (-1, 1):
        flat = np.zeros_like(sample.full)
        flat[:, inside] = 40 * sign
        for change in (-10, 10):
            shown = np.where(inside, sign * (40.0 + change), 0).astype(np.float32)
            told = compare(shown, replace(lesion, full=flat))
            assert told["lesion contrast (HU)"] == pytest.approx(change)
            assert told["lesion bias (HU)"] == pytest.approx(sign * change)


def test_an_arm_that_changes_nothing_is_the_low_dose_input(files, tmp_path, monkeypatch) -> None:
    """An untrained denoiser removes nothing, and with a learning rate of 0 it stays so."""
    torch.manual_seed(2)
    config = AblationConfig(
        CollaborationConfig(
            rounds=1, denoiser_steps=1, detector_steps=1, batch=1, crop_px=192, denoiser_rate=0, balance_batches=1
        ),
        arms=("A1", "A6"),
        seeds=(1,),
        times=(1.0, 10.0),
        training=TINY,
        test=replace(TINY, cases=2, slices_per_case=1),
        healthy=replace(TINY, cases=1, slices_per_case=1, healthy=True),
        judged_on="validation",
        fractions=(0.25,),
    )
    stock(tmp_path, files, config)
    drawn = [path.name for path in (tmp_path / "validation").iterdir()]
    networks = (build_denoiser(DenoiserConfig(widths=(16, 16))), build_detector(DETECTOR.network))
    judge = build_detector(DETECTOR.network).eval()
    arms, differences, curves = run(*networks, judge, tmp_path, config, DETECTOR)
    by_method = {row.method: dict(row.values) for row in arms.rows}
    assert list(by_method) == ["A0", "A1", "A6", "A6 × 10", "full dose"]
    partner = [values.pop("mean sensitivity, own detector") for values in by_method.values()]
    assert partner[0] == partner[1]
    assert by_method["A0"] == by_method["A1"] == by_method["A6"] == by_method["A6 × 10"]
    assert by_method["full dose"]["ROI RMSE (HU)"].mean == 0
    assert by_method["A0"]["ROI RMSE (HU)"].mean > 1
    assert [row.method for row in differences.rows] == ["A1 − A0", "A6 − A1", "A6 × 10 − A6"]
    told = [{k: v.mean for k, v in row.values.items() if "own" not in k} for row in differences.rows]
    assert all(mean == 0 for row in told for mean in row.values())
    assert any("A1 − A0: no significant difference in mean sensitivity, judge" in note for note in differences.notes)
    assert [row.method for row in curves.rows][:2] == ["A0, judge", "A0, own detector"]
    assert sorted(path.name for path in (tmp_path / "validation").iterdir()) == sorted(drawn)
    assert not (tmp_path / "test").exists()
    assert (tmp_path / "A6-x10-1.safetensors").is_file()
    once, tenfold = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("A6-1", "A6-x10-1"))
    for term, times in (("pixel", 1), ("perceptual", 10), ("detection", 10)):
        assert tenfold["weights"][term] == pytest.approx(times * once["weights"][term])
    assert once["regions"].keys() == {"annotated", "proposed"}
    monkeypatch.setattr(ablation.Collaboration, "_advance", lambda *_: pytest.fail("trained again"))
    again, *_ = run(*networks, judge, tmp_path, config, DETECTOR)
    assert again.data() == arms.data()


def test_only_an_interval_without_zero_is_a_difference() -> None:
    row = Row("25 % dose", "A6 − A1", {
        "CNR": Interval(0.2, 0.1, 0.3, 9), "ROI RMSE (HU)": Interval(-1, -2, -0.5, 9), "AP": Interval(0.2, -0.1, 0.5, 9)
    })  # fmt: skip
    said = ablation._verdict(row)
    assert said == "25 % dose, A6 − A1: CNR higher; ROI RMSE (HU) lower; no significant difference in AP."


@pytest.fixture
def start(files, tmp_path):
    """Where a run begins whose samples are there already: networks, judge, folder, configuration."""
    torch.manual_seed(2)
    config = AblationConfig(
        CollaborationConfig(
            rounds=1, denoiser_steps=1, detector_steps=1, batch=1, crop_px=192, denoiser_rate=1e-3, balance_batches=1
        ),
        arms=("A6",),
        seeds=(1, 2),
        training=replace(TINY, cases=1),
        test=replace(TINY, cases=1),
        healthy=replace(TINY, cases=1, slices_per_case=1, healthy=True),
        fractions=(0.25,),
    )
    networks = [build_detector(DETECTOR.network) for _ in range(2)]
    stock(tmp_path / "one", files, config)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    return (build_denoiser(DenoiserConfig(widths=(16, 16))), *networks), tmp_path, config


def test_side_by_side_or_not_the_results_are_the_same_and_a_failure_is_told(start) -> None:
    networks, folder, config = start
    shown = []
    tables = run(*networks, folder / "one", config, DETECTOR, on_tables=shown.append)
    assert len(shown) == 2
    assert shown[1] == tables
    steps = []
    others = run(
        *networks, folder / "two", config, DETECTOR, workers=2, on_progress=lambda _what, done, *_: steps.append(done)
    )
    assert [table.data() for table in others] == [table.data() for table in tables]
    assert max(steps) == 2 * config.collaboration.steps
    for name in ("A6-1.safetensors", "A6-2.safetensors"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
    shutil.copy(folder / "two" / "A6-1.pt", folder / "two" / "A6-2.pt")
    with pytest.raises(ModelError, match="belongs to arm A6, seed 1"):
        run(*networks, folder / "two", config, DETECTOR, workers=2)
