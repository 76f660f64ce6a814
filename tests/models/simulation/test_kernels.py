"""Vendors' kernel names, and windows."""

import pytest
import torch

from models.simulation.geometry import FanBeam, ParallelBeam
from models.simulation.kernels import KERNELS, apodisation, known_kernel, nearest_kernel, ramp_filter


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("B31f", "soft"), ("B40f", "hann"), ("B50s", "shepp-logan"), ("B70f", "ramp"), ("Br40d", "hann"),
        ("STANDARD", "hann"), ("LUNG", "shepp-logan"), ("BONE", "ramp"), ("SOFT", "soft"),
        ("59 .10.AB50", "shepp-logan"), ("59 .21.B50s", "shepp-logan"),
        ("FC13", "hann"), ("FC51", "shepp-logan"), ("Bl57d\\3", "shepp-logan"), ("Ur77u", "ramp"), ("Qr36d", "hann"),
        ("Sa36f", "hann"), ("I26f", "soft"), ("B", "hann"), ("YA", "soft"), ("L", "shepp-logan"), ("YC", "shepp-logan"),
        ("SHARP", "shepp-logan"), ("BONEPLUS", "ramp"), ("B_SOFT_B", "soft"), ("CHST", "hann"),
    ],
)  # fmt: skip
def test_names_the_nearest_kernel(name, kernel):
    assert nearest_kernel(name) == known_kernel(name) == kernel


@pytest.mark.parametrize("name", ["", "59", "XRES 3"])
def test_an_unknown_name_is_no_kernel_and_is_drawn_as_a_standard_one(name):
    assert known_kernel(name) is None
    assert nearest_kernel(name) == "hann"


def test_windows_start_at_one_and_only_fall():
    for kernel in KERNELS:
        window = apodisation(kernel, 257)
        assert window[0] == 1
        assert (window.diff() <= 0).all()


@pytest.mark.parametrize("geometry", [ParallelBeam(), FanBeam()])
def test_the_ramp_lets_a_little_through_at_zero_frequency(geometry):
    """The band-limited kernel's mean is not zero: |f| sampled would be, and would shift HU."""
    response = ramp_filter(geometry, "ramp")
    assert response[0] > 0
    assert response[0] < 0.01 * response.max()
    assert torch.argmax(response) == response.numel() - 1
