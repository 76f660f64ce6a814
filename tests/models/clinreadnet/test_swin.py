"""Windows and their way back; who can see whom."""

import pytest
import torch

from models.clinreadnet.config import NetworkConfig
from models.clinreadnet.swin import Backbone, Block, from_windows, to_windows


def test_windows_come_back_where_they_were():
    x = torch.arange(2 * 8 * 12 * 3).reshape(2, 8, 12, 3)
    windows = to_windows(x, 4)
    assert windows.shape == (12, 16, 3)
    assert torch.equal(windows[1], x[0, :4, 4:8].reshape(16, 3))
    assert torch.equal(from_windows(windows, x), x)


def seen_by(block: Block, side: int, at: tuple[int, int]) -> torch.Tensor:
    """Tokens on which the token at this place depends."""
    x = torch.randn(1, side, side, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    block(x)[0, at[0], at[1]].square().sum().backward()
    return x.grad[0].abs().sum(-1) > 0


@pytest.mark.parametrize("temperatures", [(1.0,), (2.0, 1.0, 0.5), (100.0,)])
def test_a_shifted_window_ends_at_the_border_of_the_image(temperatures):
    torch.manual_seed(1)
    block = Block(16, 1, NetworkConfig(window=4, temperatures=temperatures), shifted=True)
    corner = seen_by(block, 8, (0, 0))
    assert corner[:2, :2].all()
    assert int(corner.sum()) == 4
    middle = seen_by(block, 8, (4, 4))
    assert middle[2:6, 2:6].all()
    assert int(middle.sum()) == 16
    edge = seen_by(block, 8, (0, 3))
    assert edge[:2, 2:6].all()
    assert int(edge.sum()) == 8


def test_a_window_that_holds_all_is_not_shifted():
    block = Block(16, 1, NetworkConfig(window=4), shifted=True)
    assert seen_by(block, 4, (0, 0)).all()


def test_the_last_stage_sees_an_eighth_of_the_side(tiny):
    deep = Backbone(NetworkConfig(width=16, heads=(1, 1, 1, 1), window=2))
    assert deep(torch.zeros(2, 16, 32, 16)).shape == (2, 2, 4, 128)
    assert Backbone(tiny)(torch.zeros(1, 8, 8, 16)).shape == (1, 4, 4, 32)


def test_the_mask_of_a_shift_serves_scores_and_training_alike():
    block = Block(16, 1, NetworkConfig(window=4), shifted=True)
    x = torch.randn(1, 12, 20, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        first = block(x)
    again = block(x)
    again.sum().backward()
    assert torch.equal(first, again.detach())
    assert block.attention.qkv.weight.grad is not None
