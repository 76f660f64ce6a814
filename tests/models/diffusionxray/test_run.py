"""From a radiograph to its restoration: bounds, grid, bits and repeatability, with untrained networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.contract import ModelError, Radiograph, SourceRef
from models.diffusionxray.config import DiffusionXRayConfig, NetworkConfig, SamplingConfig, TileConfig
from models.diffusionxray.guard import local_noise_sd
from models.diffusionxray.network import build
from models.diffusionxray.run import restore, run
from models.diffusionxray.samplers import seed_of
from models.diffusionxray.scale import scale_of

CONFIG = DiffusionXRayConfig(
    tiles=TileConfig(side_px=128, overlap_px=32, ramp_px=16), sampling=SamplingConfig(returned_steps=4)
)
UID = "1.2.826.0.1.3680043.8.498.1"


@pytest.fixture(scope="module")
def radiograph() -> Radiograph:
    """16 bits, odd sides, a slope and noise."""
    y, x = np.mgrid[:85, :103]
    pixels = 20_000 + 200 * x + 100 * y + 400 * np.random.default_rng(1).standard_normal((85, 103))
    return Radiograph(np.rint(pixels).astype(np.float32), (0, 65535), SourceRef(UID), spacing_yx_mm=(0.2, 0.2))


@pytest.fixture
def networks(tiny):
    torch.manual_seed(1)
    regressor, refiner = build(replace(tiny, time=False, residual=True)), build(replace(tiny, time_scale=2000.0))
    return regressor.eval(), refiner.eval()


def test_untrained_and_with_no_step_it_is_the_image_itself(networks, radiograph):
    restored = run(*networks, radiograph, replace(CONFIG, sampling=SamplingConfig()))
    np.testing.assert_array_equal(restored.pixels, radiograph.pixels)
    np.testing.assert_array_equal(restored.safe, radiograph.pixels)
    assert restored.spread is None
    np.testing.assert_allclose(restored.noise_sd, local_noise_sd(radiograph.pixels), rtol=1e-3)


def test_a_wild_refiner_stays_within_what_is_allowed(networks, radiograph):
    restored = run(*networks, radiograph, CONFIG)
    change = np.abs(restored.pixels.astype(np.float64) - restored.safe)
    assert (change <= restored.allowed + 1).all()
    assert (change > 0.9 * restored.allowed).any()
    np.testing.assert_allclose(restored.allowed, 3 * local_noise_sd(radiograph.pixels), rtol=1e-3)
    assert np.median(restored.allowed) == pytest.approx(3 * 400, rel=0.1)


def test_whole_stored_values_on_the_same_grid(networks, radiograph):
    restored = run(*networks, radiograph, CONFIG, samples=2)
    for array in (restored.pixels, restored.safe, restored.allowed, restored.spread):
        assert array.shape == radiograph.pixels.shape
        assert array.dtype == np.float32
    assert (restored.pixels == np.rint(restored.pixels)).all()
    assert len(np.unique(restored.pixels)) > 256
    assert (restored.seed, restored.steps) == (seed_of(UID), 4)


def test_two_runs_are_equal_to_the_bit_and_another_image_has_other_noise(networks, radiograph):
    still = build(networks[1].config).eval()
    torch.nn.init.zeros_(still.head.weight)
    torch.nn.init.zeros_(still.head.bias)
    one = run(networks[0], still, radiograph, CONFIG)
    torch.manual_seed(99)
    again = run(networks[0], still, radiograph, CONFIG, samples=2)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    other = run(networks[0], still, replace(radiograph, source=SourceRef(UID + "1")), CONFIG)
    assert (one.pixels != other.pixels).mean() > 0.8  # where both reach the cap they are equal


def test_samples_spread_by_the_noise_they_start_with(networks, radiograph):
    """A velocity of 0 leaves mean + noise: 0.05 of half the greys; beside it stands the local noise."""
    still = build(networks[1].config).eval()
    torch.nn.init.zeros_(still.head.weight)
    torch.nn.init.zeros_(still.head.bias)
    plain = replace(CONFIG, guard=replace(CONFIG.guard, widening=1.0))
    restored = run(networks[0], still, radiograph, plain, samples=5)
    half = scale_of(radiograph.pixels).half
    expected = np.hypot(0.05 * half, CONFIG.guard.spread_floor * restored.noise_sd)
    assert np.sqrt((restored.spread**2).mean() / (expected**2).mean()) == pytest.approx(1, abs=0.02)
    wider = replace(CONFIG, guard=replace(CONFIG.guard, widening=2.5))
    np.testing.assert_allclose(
        run(networks[0], still, radiograph, wider, samples=5).spread, 2.5 * restored.spread, rtol=1e-5
    )


class Told(torch.nn.Module):
    """A regressor that adds what it is told to."""

    def __init__(self, config: NetworkConfig, added: torch.Tensor) -> None:
        super().__init__()
        self.config = config
        self.added = torch.nn.Parameter(added)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self.added.shape
        out = x.clone()
        out[..., :height, :width] += self.added
        return out


def test_a_wild_regressor_stays_within_what_is_allowed(networks, radiograph):
    y, x = np.mgrid[:85, :103]
    wild = Told(networks[0].config, torch.from_numpy(100.0 * (-1.0) ** (x + y)).float())
    restored = run(wild, networks[1], radiograph, CONFIG)
    change = np.abs(restored.safe.astype(np.float64) - radiograph.pixels)
    allowed = CONFIG.guard.safe_cap * restored.noise_sd
    assert (change <= allowed + 1).all()
    assert (change > 0.9 * allowed).mean() > 0.9
    whole = np.abs(restored.pixels.astype(np.float64) - radiograph.pixels)
    assert (whole <= allowed + restored.allowed + 1).all()


def test_no_network_decides_about_a_nodule(networks, radiograph):
    """A regressor that invents a disc of 8 mm, and one that would take it away: hardly any of it gets through."""
    y, x = np.mgrid[:85, :103]
    disc = (np.hypot(y - 42, x - 50) * 0.2 <= 4.0).astype(np.float32)
    for sign in (-1, 1):
        told = Told(networks[0].config, torch.from_numpy(sign * 0.5 * disc))
        change = run(told, networks[1], radiograph, replace(CONFIG, sampling=SamplingConfig()))
        middle = np.hypot(y - 42, x - 50) * 0.2 <= 2.0
        added = float((change.pixels - radiograph.pixels)[middle].mean()) / (0.5 * scale_of(radiograph.pixels).half)
        assert abs(added) < 0.02


def test_detail_that_stands_out_from_the_noise_is_returned_as_received(networks, radiograph):
    """A wire of 3 pixels, 20 times the noise: a regressor that returns one grey leaves it alone."""
    wired = radiograph.pixels.copy()
    wired[:, 50:53] += 8000
    blunt = Told(networks[0].config, -torch.from_numpy(scale_of(wired).unit(wired, (0, 65535))))
    still = replace(CONFIG, sampling=SamplingConfig())
    restored = run(blunt, networks[1], replace(radiograph, pixels=wired), still)
    np.testing.assert_array_equal(restored.pixels[:, 50:53], wired[:, 50:53])
    assert (restored.pixels[:, :30] != wired[:, :30]).mean() > 0.9


def test_values_between_whole_numbers_are_kept_where_the_file_can_store_them(networks, radiograph):
    fine = replace(radiograph, pixels=radiograph.pixels / 8, value_range=(0, 65535 / 8), value_step=1 / 8)
    restored = run(*networks, fine, CONFIG)
    np.testing.assert_array_equal(restored.pixels * 8, np.rint(restored.pixels * 8))
    assert (restored.pixels != np.rint(restored.pixels)).mean() > 0.5


def test_spread_is_told_beside_a_conservative_result_too(networks, radiograph):
    still = replace(CONFIG, sampling=SamplingConfig())
    one, several = run(*networks, radiograph, still), run(*networks, radiograph, still, samples=3)
    np.testing.assert_array_equal(one.pixels, several.pixels)
    np.testing.assert_array_equal(one.pixels, one.safe)
    assert (one.spread, one.steps) == (None, 0)
    assert (several.spread > 0).all()
    seen: list[tuple[int, int]] = []
    run(*networks, radiograph, still, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]


def test_progress_counts_every_evaluation(networks, radiograph):
    seen: list[tuple[int, int]] = []
    run(*networks, radiograph, CONFIG, samples=2, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(count, 9) for count in range(1, 10)]


def test_a_picture_and_a_radiograph_are_restored_alike(networks, radiograph):
    scale = scale_of(radiograph.pixels)
    picture = scale.unit(radiograph.pixels, radiograph.value_range)
    restored = restore(*networks, picture, (0.2, 0.2), CONFIG, seed=seed_of(UID))
    np.testing.assert_array_equal(
        scale.stored(restored.pixels, radiograph.value_range), run(*networks, radiograph, CONFIG).pixels
    )


def test_more_gain_in_the_detector_is_more_gain_in_the_result(networks, radiograph):
    other = replace(radiograph, pixels=radiograph.pixels / 2)
    one, two = run(*networks, radiograph, CONFIG), run(*networks, other, CONFIG)
    assert np.abs(two.pixels - one.pixels / 2).max() <= 2


def test_refuses_what_it_cannot_bound(networks, radiograph):
    with pytest.raises(ModelError, match="spacing"):
        run(*networks, replace(radiograph, spacing_yx_mm=None), CONFIG)
    with pytest.raises(ModelError, match="one sample"):
        run(*networks, radiograph, CONFIG, samples=0)
    with pytest.raises(ModelError, match="outside"):
        run(*networks, replace(radiograph, value_range=(0, 4095)), CONFIG)
    broken = build(networks[1].config).eval()
    torch.nn.init.constant_(broken.head.bias, torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        run(networks[0], broken, radiograph, CONFIG)
