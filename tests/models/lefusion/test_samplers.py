"""Walks and the sampler: how often the network is asked, and what it is shown outside of the lesion."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.contract import ModelError
from models.diffusionxray.samplers import Noise
from models.diffusionxray.schedule import cosine
from models.lefusion.config import SCHEDULE
from models.lefusion.samplers import CLEAN, evaluations, every_time, sample, some_times, walk

TIMES = cosine(SCHEDULE)
SHAPE = (1, 1, 6, 16, 16)


@pytest.mark.parametrize(("jump", "visits", "asked"), [(1, 1, 300), (2, 2, 598), (5, 5, 1480), (10, 10, 2910)])
def test_the_network_is_asked_as_often_as_published(jump, visits, asked):
    path = walk(every_time(300), jump=jump, visits=visits)
    assert evaluations(path) == asked
    assert (path[0], path[-1]) == (299, CLEAN)
    assert all(abs(after - before) == 1 for before, after in pairwise(path))


def test_a_walk_of_few_times_goes_back_by_the_same_times():
    times = some_times(300, 20)
    assert (times[0], times[-1], len(set(times))) == (299, 0, 20)
    path = walk(times, jump=4, visits=2)
    assert set(path) == {*times, CLEAN}
    assert evaluations(path) == 20 + 4 * 4
    assert evaluations(walk(times)) == 20
    with pytest.raises(ModelError, match="between 2"):
        some_times(300, 301)


class Recorded:
    """Fields, and which came last."""

    def __init__(self):
        self.noise = Noise(3)
        self.last = None

    def field(self, index, like):
        self.last = self.noise.field(index, like)
        return self.last


def known_and_inside():
    torch.manual_seed(0)
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[..., 2:4, 5:11, 5:11] = True
    return (torch.rand(SHAPE, dtype=torch.float64) * 1.8 - 0.9), inside


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(
    "path", [walk(every_time(300)), walk(some_times(300, 12), jump=3, visits=3)], ids=["all", "few"]
)
def test_a_perfect_network_leaves_the_outside_exact(path, eta):
    """It names the noise that was put on the background: the image under it is the background, at the right ᾱ alone."""
    known, inside = known_and_inside()
    fields = Recorded()
    shown = []

    def names_it(state, time):
        outside = ~inside
        clean = (state - TIMES.sigma[time] * fields.last) / TIMES.alpha[time]
        shown.append((clean - known)[outside].abs().max().item() * TIMES.alpha[time])
        return fields.last

    got = sample(names_it, path, known, inside, fields, schedule=TIMES, eta=eta)
    assert len(shown) == evaluations(path)
    assert max(shown) < 1e-9
    assert (got - known)[~inside].abs().max() < 1e-9


def test_without_a_composite_a_silent_network_leaves_the_background_off_by_the_last_noise():
    """8.8 HU, as the released sampler does (dossier 5): why `composite` is not optional."""
    known, inside = known_and_inside()
    got = sample(lambda x, _: torch.zeros_like(x), walk(every_time(300)), known, inside, Noise(1), schedule=TIMES)
    off = 700 * (got - known)[~inside].pow(2).mean().sqrt()
    assert off == pytest.approx(8.8, abs=0.5)


@pytest.mark.parametrize(
    ("path", "eta", "off"),
    [
        (walk(every_time(300)), 1.0, 0.06),
        (walk(every_time(300), jump=10, visits=3), 1.0, 0.06),
        (walk(some_times(300, 40)), 0.0, 0.1),  # of first order
    ],
    ids=["ancestral", "resampled", "ddim"],
)
def test_what_is_drawn_inside_has_the_distribution_that_the_network_knows(path, eta, off):
    mean, variance = 0.2, 0.04

    def knows(x, time):
        alpha, sigma = TIMES.alpha[time], TIMES.sigma[time]
        return sigma * (x - alpha * mean) / (alpha**2 * variance + sigma**2)

    known = torch.full((1, 1, 8, 24, 24), -0.9, dtype=torch.float64)
    inside = torch.ones_like(known, dtype=torch.bool)
    inside[..., :4, :, :] = False
    drawn = sample(knows, path, known, inside, Noise(2), schedule=TIMES, eta=eta)[inside]
    assert drawn.mean() == pytest.approx(mean, abs=0.02)
    assert drawn.std() == pytest.approx(np.sqrt(variance), rel=off)


def test_same_seed_same_lesion():
    known, inside = known_and_inside()
    path = walk(some_times(300, 5))
    first, again, other = (
        sample(lambda x, _: 0.5 * x, path, known, inside, Noise(seed), schedule=TIMES) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
