"""Other physics: a method that changes nothing gains nothing, a better one gains, and what nodules lose is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.contract import FloatArray, ModelError
from models.diffusionxray.audit import D_PRIME, D_PRIME_GAIN, KEPT, MOVED
from models.diffusionxray.config import GuardConfig
from models.diffusionxray.coverage import HELD, NEEDED, Sampler
from models.diffusionxray.evaluate import INPUT, PSNR
from models.diffusionxray.known import chest_pictures, rays_in, read_rays
from models.diffusionxray.shifted import GAIN, shifted, shifted_intervals
from models.evaluation.table import Table
from models.simulation.drr import BEAM_80_KV
from models.simulation.exposures import VIEW, Rays

SIDE = 96
WAYS: Mapping[str, Mapping[str, Any]] = {
    "as usual": {},
    "80 kV": {"beam": BEAM_80_KV},
    "few photons": {"photons": VIEW.photons / 9},
}


def chest(seed: int) -> Rays:
    """Hills of soft tissue, one nodule in the middle."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((SIDE, SIDE)), 12)
    soft = (14 + 4 * field / field.std()).clip(2, 28).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    more = np.where(np.hypot(y - 48, x - 50) < 8, 1.0, 0.0)
    both = np.stack([soft, soft + gaussian_filter(more, 1.5)]).astype(np.float32)
    return Rays(both, np.full_like(both, 0.3), np.array([[48.0, 50.0, 16.0]]), VIEW)


@pytest.fixture
def chests(tmp_path: Path) -> list[Path]:
    return rays_in(tmp_path, 3, draw=chest)


def softened(unit: FloatArray, _spacing_mm: float) -> FloatArray:
    return gaussian_filter(unit, 1.5)


def values(table: Table) -> dict[tuple[str, str], dict[str, float]]:
    return {(row.condition, row.method): {name: one.mean for name, one in row.values.items()} for row in table.rows}


def test_every_way_and_method_is_told_of_with_its_gain_over_the_input(chests: list[Path]) -> None:
    table = shifted({"softened": softened}, chests, ways=WAYS)
    told = values(table)
    assert set(told) == {(way, method) for way in WAYS for method in (INPUT, "softened")}
    for way in WAYS:
        assert told[way, INPUT][GAIN] == 0.0
        assert told[way, "softened"][GAIN] == pytest.approx(told[way, "softened"][PSNR] - told[way, INPUT][PSNR])
        assert told[way, "softened"][GAIN] > 3.0
        assert told[way, "softened"][KEPT] < 0.999 < told[way, INPUT][KEPT] + 0.03
        assert told[way, INPUT][MOVED] < 0.3
    assert told["few photons", INPUT][PSNR] < told["as usual", INPUT][PSNR] - 7
    assert table.rows[0].values[PSNR].patients == 3


def test_a_method_that_paints_or_erases_is_seen(chests: list[Path]) -> None:
    def halved(unit: FloatArray, _spacing_mm: float) -> FloatArray:
        return np.asarray(unit / 2)

    def moved(unit: FloatArray, _spacing_mm: float) -> FloatArray:
        return np.roll(unit, 3, axis=1)

    told = values(shifted({"halved": halved, "moved": moved}, chests, ways={"as usual": {}}))
    assert told["as usual", "halved"][KEPT] == pytest.approx(0.5 * told["as usual", INPUT][KEPT], rel=1e-3)
    assert told["as usual", "moved"][MOVED] == pytest.approx(3.0, abs=0.3)


def test_the_observer_says_how_well_nodules_are_still_seen(tmp_path: Path) -> None:
    def noisier(unit: FloatArray, _spacing_mm: float) -> FloatArray:
        noise = np.random.default_rng(abs(int(1000 * unit.sum()))).standard_normal(unit.shape)
        return np.asarray(unit + 0.8 * gaussian_filter(noise, 2.0) / 0.14, np.float32)

    table = shifted({"noisier": noisier}, rays_in(tmp_path, 48, draw=chest), ways={"few": {"photons": 400.0}})
    before, after = (values(table)["few", name] for name in (INPUT, "noisier"))
    assert before[D_PRIME] > after[D_PRIME] + 0.5
    assert after[D_PRIME_GAIN] == pytest.approx(after[D_PRIME] - before[D_PRIME], abs=0.3)


def test_a_chest_without_a_nodule_that_the_observer_could_see_whole_is_measured_all_the_same(tmp_path: Path) -> None:
    def bare(seed: int) -> Rays:
        return replace(chest(seed), nodules=np.zeros((0, 3)) if seed % 2 else np.array([[48.0, 50.0, 40.0]]))

    told = values(shifted({}, rays_in(tmp_path, 2, draw=bare), ways={"as usual": {}}))["as usual", INPUT]
    assert told[PSNR] > 20
    assert np.isnan(told[D_PRIME])
    assert told[KEPT] == pytest.approx(1.0, abs=0.1)


@dataclass(frozen=True)
class Samples:
    pixels: FloatArray
    noise_sd: FloatArray
    spread: FloatArray | None


def sampled(spread: float | None) -> Sampler:
    def sampler(unit: FloatArray, _spacing_mm: float) -> Samples:
        soft = softened(unit, 0.3)
        return Samples(soft, soft, None if spread is None else np.full_like(soft, spread))

    return sampler


def test_intervals_hold_where_they_are_wide_and_not_where_they_are_narrow(chests: list[Path]) -> None:
    wide, narrow = (
        values(shifted_intervals(sampled(spread), chests, GuardConfig(), ways=WAYS)) for spread in (1.0, 1e-4)
    )
    for way in WAYS:
        (found,) = (numbers for (condition, _), numbers in wide.items() if condition == way)
        assert found[HELD] == 1.0
        (found,) = (numbers for (condition, _), numbers in narrow.items() if condition == way)
        assert found[HELD] == 0.0
        assert found[NEEDED] > GuardConfig().widening


def test_one_sample_has_no_interval(chests: list[Path]) -> None:
    with pytest.raises(ModelError, match="several samples"):
        shifted_intervals(sampled(None), chests, GuardConfig(), ways=WAYS)


def test_without_chests_there_is_nothing_to_tell() -> None:
    with pytest.raises(ModelError, match="no chests"):
        shifted({"softened": softened}, [])


def test_chests_are_drawn_once_and_come_back_as_they_were(tmp_path: Path) -> None:
    drawn: list[int] = []

    def draw(seed: int) -> Rays:
        drawn.append(seed)
        return chest(seed)

    first, again = rays_in(tmp_path, 2, draw=draw), rays_in(tmp_path, 2, draw=draw)
    assert first == again
    assert len(drawn) == 2
    told, known = read_rays(first[0]), chest(drawn[0])
    np.testing.assert_allclose(told.soft, known.soft, atol=6e-4)
    np.testing.assert_allclose(told.bone, known.bone, atol=6e-4)
    np.testing.assert_array_equal(told.nodules, known.nodules)
    assert told.spacing_mm == known.spacing_mm


def test_a_picture_of_a_chest_is_bright_where_it_is_dense_and_shows_its_nodule(tmp_path: Path) -> None:
    paths = rays_in(tmp_path, 1, draw=chest)
    (picture,) = chest_pictures(paths)
    rays = read_rays(paths[0])
    assert np.corrcoef(picture.unit.ravel(), rays.soft[1].ravel())[0, 1] > 0.95
    assert picture.spacing_mm == rays.spacing_mm
    assert picture.key == paths[0].stem


def test_another_file_is_no_chest(tmp_path: Path) -> None:
    np.savez(tmp_path / "rays.npz", soft=np.zeros(3))
    with pytest.raises(ModelError, match="not a chest along its rays"):
        read_rays(tmp_path / "rays.npz")
