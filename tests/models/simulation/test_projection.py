"""The projector against line integrals known in closed form."""

import pytest
import torch

from models.simulation.geometry import FanBeam, ParallelBeam
from models.simulation.projection import (
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
def test_reconstructs_hu_within_one(kernel, geometry, sinogram_of, disc_mask):
    image = reconstruct(sinogram_of(geometry, [WATER, DENSE]), geometry, kernel)[0]
    assert abs(image[disc_mask(SIDE, SPACING, (0, 0, 30))].mean()) < 1
    assert abs(image[disc_mask(SIDE, SPACING, (55, 30, 14))].mean() - 500) < 1


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
