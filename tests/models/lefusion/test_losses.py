"""The loss: over which voxels, and how much a small lesion counts."""

from dataclasses import replace

import pytest
import torch

from models.diffusionxray.schedule import cosine
from models.lefusion.config import SCHEDULE
from models.lefusion.losses import focused, noise_loss
from models.lefusion.network import build

TIMES = cosine(SCHEDULE)


def cube(side, shape=(1, 1, 8, 8, 8)):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[..., :side, :side, :side] = True
    return mask


def test_the_schedule_is_the_published_one():
    assert TIMES.steps == 300
    assert 700 * TIMES.sigma[0] == pytest.approx(8.8, abs=0.05)  # HU left at the last step (dossier 5)
    assert TIMES.beta[-1] == 0.9999
    assert TIMES.alpha_bar[149] == pytest.approx(0.4938, abs=1e-4)  # cos² of the published angle


def test_outside_of_the_mask_no_error_counts():
    error = torch.ones(1, 1, 8, 8, 8)
    error[~cube(2)] = 1e6
    assert focused(error, cube(2), "lesion") == 1
    assert focused(error, cube(2), "crop") == pytest.approx(8 / 512)
    assert focused(error, cube(2), "everywhere") > 1e5


def test_a_small_lesion_counts_as_much_as_a_large_one_but_for_the_published_mean():
    masks = torch.cat([cube(2), cube(6)])
    error = torch.zeros(2, 1, 8, 8, 8)
    error[0] = 1.0
    assert focused(error, masks, "lesion") == 0.5
    assert focused(error, masks, "crop") == pytest.approx(8 / 1024)


def test_a_class_that_a_crop_lacks_does_not_count():
    masks = torch.cat([cube(2), torch.zeros(1, 1, 8, 8, 8, dtype=torch.bool)], 1)
    error = torch.full((1, 2, 8, 8, 8), 0.25)
    assert focused(error, masks, "lesion") == 0.25


def test_the_network_is_given_the_crop_noised_all_over_and_asked_for_that_noise():
    seen = {}

    def perfect(x, time, condition):
        alpha, sigma = (torch.from_numpy(t)[time.long()].float() for t in (TIMES.alpha, TIMES.sigma))
        seen["times"] = time
        return (x - alpha[:, None, None, None, None] * crops) / sigma[:, None, None, None, None]

    crops = torch.rand(64, 1, 2, 4, 4) * 2 - 1
    draws = torch.Generator().manual_seed(1)
    loss = noise_loss(perfect, crops, torch.ones_like(crops, dtype=torch.bool), TIMES, draws, focus="everywhere")
    assert loss < 1e-4
    assert seen["times"].min() < 40
    assert seen["times"].max() > 260


def test_classes_have_noise_of_their_own_and_one_training(tiny):
    network = build(replace(tiny, inputs=2, outputs=2, condition=32))
    crops = torch.rand(2, 1, 2, 8, 8).expand(-1, 2, -1, -1, -1)
    masks = torch.zeros(2, 2, 2, 8, 8, dtype=torch.bool)
    masks[:, 0, :, :3], masks[:, 1, :, 5:] = True, True
    loss = noise_loss(network, crops, masks, TIMES, torch.Generator().manual_seed(1), condition=torch.rand(2, 32))
    loss.backward()
    assert network.head.weight.grad.reshape(2, -1).abs().amax(1).gt(0).all()
    noise = torch.randn(crops.shape, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(noise[:, 0], noise[:, 1])
