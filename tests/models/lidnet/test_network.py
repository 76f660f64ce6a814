"""What holds for the network whatever its weights."""

import pytest
import torch

from models.lidnet.config import LidnetConfig, NetworkConfig
from models.lidnet.network import Denoiser, build


@pytest.fixture
def network(small) -> Denoiser:
    torch.manual_seed(1)
    made = build(small.network).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def test_untrained_it_changes_nothing(small):
    hu = 500 * torch.randn(1, 1, 64, 64)
    assert torch.equal(build(small.network)(hu), hu)


def test_it_has_the_size_that_the_card_states():
    parameters = sum(p.numel() for p in build(LidnetConfig().network).parameters())
    assert parameters == 1_375_832


def test_the_residual_has_no_level(network):
    """Whatever random weights subtract, its mean over any large region is next to nothing."""
    hu = 300 * torch.randn(2, 1, 256, 256)
    residual = network.residual(hu).detach()
    assert residual.std() > 1
    assert residual[:, :, 64:192, 64:192].mean((2, 3)).abs().max() < 0.01 * residual.std()


def test_values_beyond_the_range_pass_by_it(network):
    """Metal of 20,000 HU is clipped on the way into the network, never in the result."""
    hu = torch.zeros(1, 1, 64, 64)
    hu[..., 30:34, 30:34] = 20_000
    changed = network(hu)[..., 30:34, 30:34]
    assert (changed > 15_000).all()
    clipped = hu.clamp(max=3071)
    torch.testing.assert_close(network.residual(hu), network.residual(clipped))


def test_noise_twice_as_strong_is_removed_twice_as_much(network):
    """Beside the image itself, the network sees noise in units of itself."""
    noise = torch.randn(1, 1, 128, 128)
    weak, strong = (float(network.residual(level * noise).detach().std()) for level in (30.0, 60.0))
    assert strong / weak == pytest.approx(2, rel=0.25)


def test_constants_travel_with_the_weights(network):
    other = build(NetworkConfig(widths=(8, 12), input_hu=1.0, least_scale_hu=50.0))
    other.load_state_dict(network.state_dict())
    hu = 200 * torch.randn(1, 1, 64, 64)
    assert torch.equal(other(hu), network(hu))
