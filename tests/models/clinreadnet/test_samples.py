"""The physics-labelled set: who is in which split, what is on disk, and the same again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.clinreadnet.config import ClinReadNetConfig, DataConfig
from models.clinreadnet.degrade import Ingredients
from models.clinreadnet.labels import latent, quality
from models.clinreadnet.samples import (
    REAL,
    STEP_HU,
    load_sample,
    make_samples,
    plan_samples,
    random_scanner,
    read_facts,
    sample_files,
)
from models.contract import Acquisition, ModelError
from models.simulation.geometry import FanBeam, ParallelBeam

DATA = DataConfig(
    families=("anthropomorphic-abdomen",),
    thinning=(1, 2, 4, 8),
    test_families=("mird",),
    geometry=ParallelBeam(views=64, channels=96, pitch_mm=5.0),
    test_geometry=FanBeam(views=64, channels=96, pitch_mm=9.0),
    cases=2,
    test_cases=1,
    slices_per_case=1,
    shape_zyx=(3, 80, 80),
    pixels_mm=(5.0, 5.0),
    step_mm=8.0,
    folds=2,
)
CONFIG = ClinReadNetConfig(data=DATA)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("samples")
    make_samples(out, CONFIG, seed=1)
    return out


def real_slice(folder: Path, patient: str, number: int, *, kernel: str = "B30f", side: int = 512) -> Path:
    path = folder / f"{patient}-{number}.npz"
    hu = np.zeros((side, side), np.int16)
    facts = {"patient": patient, "collection": "c", "kernel": kernel, "manufacturer": "m"}
    numbers = {"spacing_mm": 0.7, "kvp": 120.0, "exposure_mas": 200.0, "slice_thickness_mm": 3.0}
    np.savez_compressed(path, hu=hu, padding=hu > 0, **numbers, **facts)
    return path


def test_families_and_patients_stay_on_their_side(made):
    splits = {split: [read_facts(path) for path in sample_files(made / split)] for split in ("train", "validation")}
    assert {facts.patient for facts in splits["train"]} == {"anthropomorphic-abdomen.000"}
    assert {facts.patient for facts in splits["validation"]} == {"anthropomorphic-abdomen.001"}
    assert {read_facts(path).family for path in sample_files(made / "test")} == {"mird"}


def test_worse_scans_are_labelled_lower(made):
    for split in ("train", "test"):
        facts = read_facts(sample_files(made / split)[0])
        grid = [
            [quality(latent(facts.physics, view, fraction), DATA.observer) for fraction in DATA.grid_fractions]
            for view in range(len(DATA.thinning))
        ]
        assert (np.diff(grid, axis=1) < 0).all()
        assert (np.diff(grid, axis=0) < 0).all()


def test_an_image_is_mixed_from_what_is_on_disk(made):
    sample = load_sample(sample_files(made / "train")[0])
    assert sample.planes.shape == (1 + 3 + 4 + 4, 80, 80)
    hu = STEP_HU * sample.planes.astype(np.float32)
    assert not sample.layers(0)[1].any()
    streaks = np.concatenate([np.zeros_like(hu[:1]), hu[1:4]])
    physics = sample.facts.physics
    parts = Ingredients(hu[0], streaks, hu[4:8], hu[8:], physics.own_noise, sample.facts.thinning)
    for view, fraction, signs in ((0, 1.0, (1, 1)), (2, 0.3, (1, -1)), (3, 0.1, (-1, 1))):
        image = sample.image(view, fraction, signs=signs)
        assert np.array_equal(image, parts.mixed(view, fraction, signs=signs))
    crop = sample.layers(2, slice(8, 40), slice(16, 48))
    assert np.array_equal(crop, sample.layers(2)[:, 8:40, 16:48])
    noise = [float((sample.image(0, fraction) - hu[0]).std()) for fraction in (1.0, 0.25)]
    assert 2 < noise[1] / noise[0] < 4  # quantum noise doubles, electronic noise grows fourfold


def test_what_is_there_is_kept_and_the_same_is_made_again(made, tmp_path):
    first = sample_files(made / "train")[0]
    before = first.stat().st_mtime_ns
    reported: list[tuple[int, int]] = []
    files = make_samples(made, CONFIG, seed=1, on_progress=lambda done, n: reported.append((done, n)))
    assert reported == [(3, 3)]
    assert first in files
    assert first.stat().st_mtime_ns == before
    alone = replace(CONFIG, data=replace(DATA, cases=1, test_cases=0))
    (again,) = make_samples(tmp_path, alone, seed=1)
    assert again.read_bytes() == first.read_bytes()
    assert read_facts(again) == read_facts(first)


def test_a_sample_without_its_facts_does_not_count(made, tmp_path):
    source = sample_files(made / "train")[0]
    (tmp_path / source.name).write_bytes(source.read_bytes())
    with pytest.raises(ModelError, match="no samples"):
        sample_files(tmp_path)
    (tmp_path / source.name).with_suffix(".json").write_text("{}")
    with pytest.raises(ModelError, match="facts are missing or incomplete"):
        load_sample(tmp_path / source.name)


def test_real_slices_are_split_by_patient_and_spread(tmp_path):
    paths = [real_slice(tmp_path, patient, number) for patient in ("a", "b", "c", "d") for number in range(5)]
    paths.append(real_slice(tmp_path, "e", 0, kernel="B70f"))
    paths.append(real_slice(tmp_path, "f", 0, side=256))
    config = ClinReadNetConfig(
        data=replace(DATA, families=(), test_families=(), slices_per_patient=2, folds=3), held_out=("b",)
    )
    plan = plan_samples(config, seed=1, slices=paths)
    splits: dict[str, set[str]] = {}
    for one in plan:
        splits.setdefault(one.names[0].split("-")[0], set()).add(one.split)
    assert set(splits) == {"a", "b", "c", "d"}
    assert splits.pop("b") == {"test"}
    assert all(len(split) == 1 for split in splits.values())
    assert sorted(split.pop() for split in splits.values()) == ["train", "train", "validation"]
    assert sorted(one.names[0] for one in plan if one.names[0].startswith("a")) == ["a-0", "a-4"]
    (source,) = plan[0].draw()
    assert source.family == REAL
    assert source.acquisition.kernel == "B30f"


def test_one_patient_of_few_is_for_validation():
    for cases in (2, 5, 6, 13):
        config = ClinReadNetConfig(data=replace(DATA, cases=cases, folds=6))
        splits = [one.split for one in plan_samples(config, seed=1)]
        assert splits.count("validation") == max(cases // 6, 1)
        assert splits.count("train") == cases - splits.count("validation")


def test_tests_are_scanned_on_another_machine():
    from models.clinreadnet.degrade import Source

    source = Source("a", np.zeros((4, 4), np.float32), 1.0, "a", "mird", True, Acquisition())
    rng = np.random.default_rng(1)
    assert random_scanner(source, DATA, rng).geometry == DATA.test_geometry
    assert random_scanner(replace(source, family="other"), DATA, rng).geometry == DATA.geometry
    kernels = {random_scanner(source, DATA, rng).kernel for _ in range(40)}
    assert kernels == set(DATA.kernels)
