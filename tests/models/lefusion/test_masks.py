"""DiffMask: its control sphere, its clean-up, and the organ that it must not leave."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.contract import ModelError
from models.diffusionxray.samplers import Noise
from models.diffusionxray.schedule import cosine
from models.lefusion.config import SCHEDULE
from models.lefusion.masks import cleaned, coded, control_sphere, draw_mask, equivalent_diameter, sphere_of
from models.lefusion.samplers import some_times, walk

TIMES = cosine(SCHEDULE)
SHAPE = (12, 24, 24)


class Shape(torch.nn.Module):
    """A network that knows what it wants to draw: all of the sphere's neighbourhood, or noise."""

    def __init__(self, wanted):
        super().__init__()
        self.wanted = torch.nn.Parameter(torch.from_numpy(coded(wanted))[None, None])
        self.shown = []

    def forward(self, x, time):
        state, beside = x[:, :1], x[:, 1:]
        self.shown.append((int(time), state.clone()))
        self.beside = beside
        return (state - TIMES.alpha[int(time)] * self.wanted) / TIMES.sigma[int(time)]


def test_the_control_sphere_holds_the_mask_and_touches_it():
    rng = np.random.default_rng(1)
    mask = np.zeros(SHAPE, bool)
    mask[4:9, 5:16, 8:13] = rng.random((5, 11, 5)) > 0.3
    centre, radius = sphere_of(mask)
    assert not (mask & ~control_sphere(SHAPE, centre, radius)).any()
    assert (mask & ~control_sphere(SHAPE, centre, radius - 1)).any()
    assert np.abs(np.array(centre) - np.argwhere(mask).mean(0)).max() <= 0.5
    with pytest.raises(ModelError, match="without a voxel"):
        sphere_of(np.zeros(SHAPE, bool))


def test_a_sphere_has_its_diameter():
    ball = control_sphere((40, 40, 40), (20, 20, 20), 12)
    assert equivalent_diameter(ball) == pytest.approx(24, rel=0.02)


def test_the_clean_up_fills_holes_and_keeps_the_largest_piece():
    drawn = coded(control_sphere(SHAPE, (6, 10, 10), 5))
    drawn[6, 10, 10] = -1
    drawn[1, 1, 1] = 1
    mask = cleaned(drawn, np.ones(SHAPE, bool))
    assert np.array_equal(mask, control_sphere(SHAPE, (6, 10, 10), 5))
    assert not cleaned(np.full(SHAPE, -1, np.float32), np.ones(SHAPE, bool)).any()


def test_outside_of_the_organ_every_step_is_told_that_there_is_nothing():
    wanted = control_sphere(SHAPE, (6, 12, 12), 5)
    organ = np.zeros(SHAPE, bool)
    organ[..., :12] = True
    network = Shape(wanted)
    mask = draw_mask(network, wanted, organ, Noise(1), path=walk(some_times(300, 20)), schedule=TIMES)
    assert np.array_equal(mask, wanted & organ)
    assert torch.equal(network.beside[0, 0], torch.from_numpy(coded(wanted)))
    for time, state in network.shown:
        outside = state[0, 0][torch.from_numpy(~organ)]
        noise = (outside + TIMES.alpha[time]) / TIMES.sigma[time]
        assert abs(noise.mean()) < 0.1, time
        assert noise.std() == pytest.approx(1, abs=0.1), time


def test_the_real_network_has_the_sphere_as_second_input(tiny):
    from models.lefusion.network import build

    network = build(replace(tiny, inputs=2, condition=0)).eval()
    sphere = control_sphere(SHAPE, (6, 12, 12), 4)
    mask = draw_mask(network, sphere, sphere, Noise(1), path=walk(some_times(300, 3)), schedule=TIMES, eta=0.0)
    assert mask.shape == SHAPE
    assert not (mask & ~sphere).any()
