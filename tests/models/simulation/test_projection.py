"""The projector against line integrals known in closed form, and against an independent one."""

import numpy as np
import pytest
import torch
from skimage.transform import radon

from models.simulation.geometry import FanBeam, ParallelBeam
from models.simulation.kernels import apodisation
from models.simulation.projection import (
    _sum_of_bags,
    _sum_of_samples,
    attenuation,
    filtered_back_project,
    forward_project,
    hounsfield,
)

SIDE, SPACING = 256, 1.4
WATER, DENSE = (0.0, 0.0, 140.0, 1.0), (55.0, 30.0, 20.0, 0.5)
GEOMETRIES = {
    "parallel": ParallelBeam(views=360, channels=368, pitch_mm=1.2),
    "parallel, odd views": ParallelBeam(views=361, channels=368, pitch_mm=1.2),
    "fan": FanBeam(views=400, channels=450, pitch_mm=2.0),
    "fan, odd views": FanBeam(views=403, channels=450, pitch_mm=2.0, channel_offset=0.0),
}


@pytest.fixture(params=GEOMETRIES.values(), ids=GEOMETRIES)
def geometry(request):
    return request.param


def reconstruct(sinogram, geometry, kernel="hann", shape=(SIDE, SIDE)):
    return hounsfield(filtered_back_project(sinogram, geometry, shape=shape, spacing_mm=SPACING, kernel=kernel))


@pytest.mark.parametrize("kernel", ["ramp", "shepp-logan", "hann", "soft"])
def test_3_4_1_reconstructs_hu_within_one(kernel, geometry, sinogram_of, disc_mask):
    image = reconstruct(sinogram_of(geometry, [WATER, DENSE]), geometry, kernel)[0]
    assert abs(image[disc_mask(SIDE, SPACING, (0, 0, 30))].mean()) < 1
    assert abs(image[disc_mask(SIDE, SPACING, (55, 30, 14))].mean() - 500) < 1


@pytest.mark.parametrize("kernel", ["ramp", "hann", "soft"])
def test_3_4_1_an_edge_has_the_sharpness_of_the_kernel(kernel, sinogram_of):
    """MTF of a disc's rim = the kernel's window × sinc² of linear interpolation.

    The disc lies beside the centre, so that its rim meets the channels at all phases.
    """
    geometry, disc, step = ParallelBeam(views=720, channels=368, pitch_mm=1.2), (17.3, 9.1, 80.0, 1.0), 0.1
    side, spacing = 416, 0.5
    lines = sinogram_of(geometry, [disc])
    image = hounsfield(filtered_back_project(lines, geometry, shape=(side, side), spacing_mm=spacing, kernel=kernel))
    axis = (torch.arange(side) - (side - 1) / 2) * spacing
    distance = torch.hypot(axis[:, None] - disc[1], axis - disc[0]) - disc[2]
    bins = torch.round(distance / step).long() + 200
    near = (bins >= 0) & (bins <= 400)
    count = torch.bincount(bins[near], minlength=401)
    profile = torch.bincount(bins[near], weights=image[0][near].double(), minlength=401) / count
    transfer = torch.fft.rfft(-profile.diff(), n=4096).abs() / 1000
    frequency = torch.fft.rfftfreq(4096, step)
    nyquist = 0.5 / geometry.pitch_mm
    window = apodisation(kernel, 1001)
    for part in (0.2, 0.4, 0.6, 0.8):
        designed = window[int(part * 1000)] * torch.sinc(torch.tensor(part / 2)) ** 2
        measured = transfer[torch.argmin((frequency - part * nyquist).abs())]
        assert measured == pytest.approx(float(designed), abs=0.03)


def test_agrees_with_the_radon_transform_of_scikit_image(image_of):
    """An oracle that shares no code: it turns the image and adds up columns; its y axis runs upwards."""
    side, spacing = 129, 2.8
    geometry = ParallelBeam(views=60, channels=side, pitch_mm=spacing)
    density = attenuation(image_of(side, spacing, [WATER, DENSE]))
    own = forward_project(density, spacing, geometry)[0].numpy()
    oracle = radon(density[0].numpy()[::-1], theta=np.arange(60) * 3.0, circle=True).T * spacing
    assert np.abs(oracle - own).mean() < 0.002 * own.mean()
    assert np.abs(oracle - own).max() < 0.03 * own.max()


def test_sparse_views_are_every_nth_of_the_full_scan_and_cost_streaks(image_of, disc_mask):
    full = FanBeam(views=360, channels=220, pitch_mm=4.0)
    sparse = full.sparser(6)
    image = image_of(SIDE, SPACING, [WATER, DENSE])
    lines = forward_project(attenuation(image), SPACING, full)
    torch.testing.assert_close(
        forward_project(attenuation(image), SPACING, sparse), lines[:, ::6], atol=2e-4, rtol=1e-3
    )
    inside = disc_mask(SIDE, SPACING, (-40, -40, 60))
    spread = [reconstruct(lines[:, :: full.views // g.views], g)[0][inside].std() for g in (full, sparse)]
    assert spread[1] > 3 * spread[0]
    with pytest.raises(ValueError, match="360 views"):
        full.sparser(7)


def test_a_quarter_offset_interleaves_opposite_views():
    """Rays of opposite views lie half a channel apart: twice the sampling. Without the offset they coincide."""
    for channel_offset, apart in ((0.25, 0.5), (0.0, 0.0)):
        gamma = FanBeam(channel_offset=channel_offset).coordinates().double()
        opposite = -gamma.flip(0)
        nearest = (gamma[100:800, None] - opposite[None]).abs().min(1).values / FanBeam().sampling
        assert nearest.max() == pytest.approx(apart, abs=1e-3)


def test_places_an_object_where_it_is(geometry, sinogram_of, disc_mask):
    """A disc off both axes comes out at its own place and not at a mirrored or turned one."""
    image = reconstruct(sinogram_of(geometry, [WATER, DENSE]), geometry)[0]
    for x, y in ((-55, 30), (55, -30), (-55, -30), (30, 55), (-30, 55)):
        assert image[disc_mask(SIDE, SPACING, (x, y, 8))].mean() < 50


def test_projects_forward_as_the_closed_form_says(geometry, sinogram_of, image_of):
    truth = sinogram_of(geometry, [WATER, DENSE])
    image = attenuation(image_of(SIDE, SPACING, [WATER, DENSE]))
    projected = forward_project(image, SPACING, geometry)
    assert (projected - truth).abs().mean() < 0.01 * truth.mean()


def test_projection_is_linear_and_keeps_the_batch_apart(image_of):
    geometry = FanBeam(views=40, channels=120, pitch_mm=7.5)
    first, second = (attenuation(image_of(64, 5.6, [disc])) for disc in (WATER, DENSE))
    both = forward_project(torch.cat([first, second]), 5.6, geometry)
    torch.testing.assert_close(both[:1], forward_project(first, 5.6, geometry))
    torch.testing.assert_close(both.sum(0, keepdim=True), forward_project(first + second, 5.6, geometry))


def test_oblong_images_are_cut_from_the_square_one(sinogram_of):
    geometry = ParallelBeam(views=90, channels=368, pitch_mm=1.2)
    sinogram = sinogram_of(geometry, [WATER, DENSE])
    square = reconstruct(sinogram, geometry)
    oblong = reconstruct(sinogram, geometry, shape=(SIDE, 192))
    torch.testing.assert_close(oblong, square[:, :, 32:-32])


def test_soft_kernels_blur_an_edge_more(sinogram_of):
    """The 10-90 % width of an edge grows from the ramp to the soft kernel."""
    geometry = ParallelBeam(views=360, channels=368, pitch_mm=1.2)
    sinogram = sinogram_of(geometry, [WATER])
    steepest = [
        reconstruct(sinogram, geometry, kernel)[0, SIDE // 2].diff().abs().max() for kernel in ("ramp", "hann", "soft")
    ]
    assert steepest[0] > steepest[1] > steepest[2]


def test_gradients_flow_through_projection_and_reconstruction():
    geometry = ParallelBeam(views=16, channels=32, pitch_mm=2.0)
    image = torch.rand(1, 24, 24, requires_grad=True)
    sinogram = forward_project(image, 2.0, geometry)
    filtered_back_project(sinogram, geometry, shape=(24, 24), spacing_mm=2.0, kernel="hann").square().mean().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_the_coarser_fan_looks_at_the_same_rays():
    """Each coarse channel lies in the middle of the fine ones that it stands for."""
    fine = FanBeam(views=80, channels=120)
    coarse = fine.coarser(4)
    torch.testing.assert_close(coarse.coordinates(), fine.coordinates().reshape(-1, 4).mean(1))


@pytest.mark.parametrize("images", [1, 9])
def test_both_ways_to_project_back_give_one_image_and_one_gradient(geometry, images) -> None:
    """Few images are sampled, many are summed as rows of a table; rays beyond the detector count for neither."""
    rows = torch.randn(images, 19, geometry.channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    axis = 9.0 * (torch.arange(64, dtype=torch.float64) - 31.5)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    found = []
    for way in (_sum_of_samples, _sum_of_bags):
        asked = rows.clone().requires_grad_(True)
        image = way(asked, geometry, x, y)
        (gradient,) = torch.autograd.grad(image.square().sum(), asked)
        found.append((image.detach(), gradient))
    (sampled, one), (summed, other) = found
    assert (sampled == 0).any() == (summed == 0).any()
    torch.testing.assert_close(summed, sampled, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)
