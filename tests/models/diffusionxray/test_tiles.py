"""Tiles: exact for the identity, below the noise for networks that see far; stored values come back exactly."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from models.contract import ModelError
from models.diffusionxray.arms import CPU, restorer_of
from models.diffusionxray.config import NETWORKS, NetworkConfig, TileConfig
from models.diffusionxray.network import build
from models.diffusionxray.samplers import Noise, dpm_solver, refine
from models.diffusionxray.scale import Scale
from models.diffusionxray.schedule import ScheduleConfig, cosine, even_steps
from models.diffusionxray.tiles import padded, predictor, starts, tiled, weights
from models.weights import FOLDER

FULL = Scale(0, 65535)
SMALL = TileConfig(side_px=64, overlap_px=32, ramp_px=16)

shapes = st.builds(
    lambda multiple, side, overlap, ramp: (multiple, TileConfig(side * multiple, overlap * multiple, ramp)),
    st.sampled_from([4, 16]),
    st.integers(4, 12),
    st.integers(1, 3),
    st.integers(1, 4),
)


@given(shapes, st.integers(1, 60))
def test_shares_are_exact_binary_fractions_that_sum_to_one(shape, cells):
    multiple, config = shape
    side = cells * multiple
    begins = starts(side, config, multiple)
    total = np.zeros(side)
    for begin, share in zip(begins, weights(side, begins, config), strict=True):
        assert begin % multiple == 0
        assert len(share) == min(side, config.side_px)
        assert (share >= 0).all()
        assert (share * 4096 == np.rint(share * 4096)).all()
        total[begin : begin + len(share)] += share
    assert (total == 1).all()
    for before, begin in pairwise(begins):
        assert before + config.side_px - begin >= config.overlap_px


def test_2048_is_not_cut_and_3072_is_in_four():
    multiple = NETWORKS["refiner"].multiple
    assert starts(2048, TileConfig(), multiple) == [0]
    assert starts(3072, TileConfig(), multiple) == [0, 768]


def test_pixels_that_saw_a_cut_edge_have_no_share():
    first, second = weights(2048, [0, 896], TileConfig(side_px=1152, overlap_px=256, ramp_px=128))
    assert (first[1152 - 64 :] == 0).all()
    assert (second[:64] == 0).all()
    assert first[1152 - 129] > 0.5 > first[1152 - 128] > 0


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_identity_comes_back_bit_for_bit(rows, columns, seed):
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.standard_normal((1, 1, 4 * rows, 4 * columns)).astype(np.float32))
    assert torch.equal(tiled(lambda tile: tile, image, SMALL, 4), image)


@pytest.mark.parametrize("sd", [4.0, 8.0, 12.0])
def test_the_seam_of_a_gaussian_network_is_below_the_tail_that_a_tile_cannot_see(sd):
    """At least 8 pixels from a cut edge; beyond, zeros are seen instead of values within ±1."""
    at = torch.arange(-60, 61, dtype=torch.float64)
    kernel = torch.exp(-(at**2) / (2 * sd**2))
    kernel = kernel / kernel.sum()

    def blur(image: torch.Tensor) -> torch.Tensor:
        down = functional.conv2d(image.double(), kernel[None, None, :, None], padding=(60, 0))
        return functional.conv2d(down, kernel[None, None, None], padding=(0, 60)).float()

    image = torch.rand(1, 1, 160, 192, generator=torch.Generator().manual_seed(1)) * 2 - 1
    seam = float((tiled(blur, image, SMALL, 4) - blur(image)).abs().max())
    unseen_per_edge = 0.5 * math.erfc(8 / (sd * math.sqrt(2)))
    assert 0 < seam < 4 * unseen_per_edge


def test_the_seam_of_the_shipped_size_is_below_a_hundredth_of_what_it_says():
    """With untrained weights, and with the margin of 128 pixels that the shipped tiles have."""
    torch.manual_seed(1)
    network = build(NETWORKS["refiner"]).eval()
    shipped = TileConfig()
    config = TileConfig(640, shipped.overlap_px, shipped.ramp_px)
    state = torch.randn(1, 1, 128, 896) * 0.3
    with torch.inference_mode():
        whole = network(state, torch.tensor([0.5]))
        seam = (predictor(network, config)(state, 0.5) - whole).abs()
    assert 0 < float(seam.max()) < 0.01 * float(whole.std())


def test_the_seam_of_the_shipped_weights_is_far_below_the_noise():
    """Both networks, with the shipped overlap, on a picture of 3 % noise."""
    restorer, shipped, noise_sd = restorer_of(FOLDER / "diffusionxray-fast.safetensors", CPU), TileConfig(), 0.03
    config = TileConfig(640, shipped.overlap_px, shipped.ramp_px)
    rng = np.random.default_rng(1)
    field = gaussian_filter(rng.standard_normal((96, 896)), 10)
    picture = 0.5 * field / field.std() + noise_sd * rng.standard_normal(field.shape)
    image = torch.from_numpy(picture.astype(np.float32))[None, None]
    with torch.inference_mode():
        for cut, whole in (
            (tiled(restorer.regressor, image, config, 8), restorer.regressor(image)),
            (predictor(restorer.refiner, config)(image, 0.5), restorer.refiner(image, torch.tensor([0.5]))),
        ):
            assert float((whole - image).abs().max()) > 0.5 * noise_sd
            assert float((cut - whole).abs().max()) < 1e-3 * noise_sd


def test_sampling_in_tiles_is_sampling_the_whole():
    """One state and one noise field: a network that sees less than the margin gives the same image, cut or not."""
    torch.manual_seed(1)
    network = build(NetworkConfig(inputs=2, fold=1, stem=16, width=16, mults=(1,))).eval()  # reaches 15 pixels
    flow = build(NetworkConfig(fold=1, stem=16, width=16, mults=(1,))).eval()
    tiles, whole = TileConfig(side_px=56, overlap_px=40, ramp_px=8), TileConfig(side_px=512)
    condition = torch.rand(1, 1, 72, 96) * 2 - 1
    path, noise = even_steps(cosine(ScheduleConfig(steps=50)), 4), Noise(5)
    with torch.inference_mode():
        one, other = (
            dpm_solver(predictor(network, config, condition), path, condition, noise) for config in (tiles, whole)
        )
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)  # rounding, by 1 / α in the first steps
        assert float(one.std()) > 0.1
        one, other = (
            refine(predictor(flow, config), condition, noise, steps=4, start_sd=0.05) for config in (tiles, whole)
        )
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_refuses_what_would_leave_seams():
    image = torch.zeros(1, 1, 96, 96)
    with pytest.raises(ModelError, match="multiples of 32"):
        tiled(lambda tile: tile, torch.zeros(1, 1, 100, 96), SMALL, 32)
    with pytest.raises(ModelError, match="multiples of 16"):
        tiled(lambda tile: tile, image, TileConfig(side_px=64, overlap_px=24, ramp_px=16), 16)
    for config in (TileConfig(64, 16, 32), TileConfig(64, 64, 16), TileConfig(64, 32, 0)):
        with pytest.raises(ModelError, match="ramps"):
            tiled(lambda tile: tile, image, config, 16)


def test_a_radiograph_of_odd_size_through_the_identity_is_itself():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 65536, (101, 77)).astype(np.float32)
    canvas = padded(FULL.unit(pixels, (0, 65535)), 4)
    assert canvas.shape == (104, 80)
    out = tiled(lambda tile: tile, torch.from_numpy(canvas)[None, None], SMALL, 4)[0, 0].numpy()
    np.testing.assert_array_equal(FULL.stored(out[:101, :77], (0, 65535)), pixels)


def test_padding_mirrors_without_repeating_the_edge():
    assert padded(np.array([[1, 2, 3]], np.float32), 5).tolist() == [[1, 2, 3, 2, 1]] * 5
