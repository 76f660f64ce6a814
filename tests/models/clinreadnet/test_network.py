"""The whole network: what goes in at full size, and what comes out."""

from dataclasses import replace

import pytest
import torch

from models.clinreadnet.config import ARMS, PAPER_LIKE, NetworkConfig
from models.clinreadnet.network import build, stored_units

HALF_THE_SIDE = 256


def test_stored_units_are_those_of_the_challenge():
    hu = torch.tensor([-2048.0, -1000, -300, 400, 3000])
    assert stored_units(hu).tolist() == [0, 0, 0.5, 1, 1]


def test_a_slice_gives_probabilities_and_the_same_again():
    torch.manual_seed(1)
    network = build(NetworkConfig()).eval()
    x = torch.rand(1, 1, 512, 512)
    with torch.inference_mode():
        p = network(x)
        assert p.shape == (1, 21)
        assert p.dtype == torch.float32
        assert float(p.sum()) == pytest.approx(1, abs=1e-5)
        assert torch.equal(p, network(x))


def test_both_sizes_come_from_one_configuration():
    shipped, paper = build(NetworkConfig()), build(PAPER_LIKE)
    assert shipped.config.multiple == paper.config.multiple == HALF_THE_SIDE
    assert paper.backbone.width == 768
    assert [type(layer).__name__[0] for layer in paper.backbone.layers] == list("BBMBBMBBBBBBMBBL")
    assert [type(layer).__name__[0] for layer in shipped.backbone.layers] == list("BBMBBMBBMBBL")


@pytest.mark.parametrize("arm", ARMS)
def test_gradients_reach_everything_that_is_learnt(arm, tiny):
    switches = ARMS[arm][0]
    config = replace(
        tiny, temperatures=switches.temperatures, learn_temperatures=switches.learn_temperatures,
        sobel=switches.sobel, local=switches.local,
    )  # fmt: skip
    torch.manual_seed(1)
    network = build(config)
    network(torch.rand(3, 1, 64, 64))[:, 3].log().sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert (parameter.grad != 0).any(), name


def test_every_pixel_counts_at_full_resolution(tiny):
    """Nothing is resampled away: the finest pattern, one pixel on and one off, reaches the output."""
    torch.manual_seed(1)
    x = torch.full((1, 1, 64, 64), 0.5, requires_grad=True)
    build(tiny)(x)[0, 3].backward()
    assert (x.grad != 0).all()


def test_every_width_is_safe_in_the_backward_pass():
    """torch 2.13.0, channels-last, fewer than 16 channels: memory is corrupted."""
    for config in (NetworkConfig(), PAPER_LIKE):
        assert config.width % 16 == 0
