"""(S)W-MTMSA: rows, temperatures, masks, and Swin's own attention as the special case."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.clinreadnet.attention import (
    LEAST_TEMPERATURE,
    WindowAttention,
    mixed_softmax,
    relative_position,
    shift_mask,
)

WIDTH, HEADS, WINDOW = 16, 2, 4


def attention(*temperatures: float, learn: bool = True) -> WindowAttention:
    torch.manual_seed(1)
    return WindowAttention(WIDTH, HEADS, WINDOW, temperatures=temperatures or (2.0, 1.0, 0.5), learn=learn)


def tokens(windows: int = 4) -> torch.Tensor:
    return 3 * torch.randn(windows, WINDOW**2, WIDTH, generator=torch.Generator().manual_seed(2))


def swin(layer: WindowAttention, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Window attention as in the public code of Swin, with the layer's own weights."""
    windows, count, width = x.shape
    qkv = layer.qkv(x).reshape(windows, count, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0] * (width // HEADS) ** -0.5, qkv[1], qkv[2]
    bias = layer.position_bias[layer.position.view(-1)].view(count, count, -1).permute(2, 0, 1).contiguous()
    logits = q @ k.transpose(-2, -1) + bias.unsqueeze(0)
    if mask is not None:
        logits = logits.view(windows // len(mask), len(mask), HEADS, count, count) + mask.unsqueeze(1).unsqueeze(0)
        logits = logits.view(-1, HEADS, count, count)
    return layer.project((logits.softmax(-1) @ v).transpose(1, 2).reshape(windows, count, width))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("learn", [False, True])
def test_one_temperature_of_one_is_swin_bit_for_bit(masked, learn):
    layer, x = attention(1.0, learn=learn), tokens()
    mask = torch.from_numpy(shift_mask(8, 8, WINDOW, 2)) if masked else None
    assert torch.equal(layer(x, mask), swin(layer, x, mask))


def test_temperatures_start_exactly_where_they_are_told():
    layer = attention(2.0, 1.0, 0.5)
    assert layer.temperatures.tolist() == [[2.0, 1.0, 0.5]] * HEADS
    assert torch.allclose(layer.shares, torch.full((HEADS, 3), 1 / 3))


def test_a_temperature_never_falls_to_the_least():
    layer = attention()
    with torch.no_grad():
        layer.raw_temperature.fill_(-30)
    assert torch.allclose(layer.temperatures, torch.tensor(LEAST_TEMPERATURE), atol=1e-6)
    x = tokens().requires_grad_()
    layer(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_rows_sum_to_one():
    layer, x = attention(), tokens()
    for mask in (None, torch.from_numpy(shift_mask(8, 8, WINDOW, 2))):
        assert torch.allclose(layer.weights(x, mask).sum(-1), torch.ones(4, HEADS, WINDOW**2), atol=1e-6)


def test_entropy_rises_with_the_temperature():
    logits = torch.randn(1, HEADS, 16, 16, generator=torch.Generator().manual_seed(3))
    ones = torch.ones(HEADS, 1)
    entropies = []
    for temperature in (0.1, 0.5, 1.0, 2.0, 8.0):
        weights = mixed_softmax(logits, temperature * ones, ones)
        entropies.append(-(weights * weights.clamp_min(1e-30).log()).sum(-1))
    for colder, warmer in pairwise(entropies):
        assert (warmer > colder).all()


def test_the_mean_of_softmaxes_is_what_was_said():
    logits = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    temperatures, shares = torch.tensor([[2.0, 0.5]]), torch.tensor([[0.25, 0.75]])
    wanted = 0.25 * (logits / 2).softmax(-1) + 0.75 * (logits / 0.5).softmax(-1)
    assert torch.allclose(mixed_softmax(logits, temperatures, shares), wanted)


@pytest.mark.parametrize("temperature", [0.1001, 0.5, 1.0, 2.0, 100.0])
def test_nothing_is_seen_through_the_mask_at_any_temperature(temperature):
    layer = attention(temperature)
    mask = torch.from_numpy(shift_mask(8, 8, WINDOW, 2))
    weights = layer.weights(20 * tokens(), mask).detach()
    assert float(weights.masked_select(torch.isinf(mask)[:, None].expand_as(weights)).max()) == 0.0


def test_the_mask_tells_tokens_that_were_not_neighbours():
    """Window 2 of a grid of 4, rolled by 1: the first window holds old neighbours only, the last four strangers."""
    mask = shift_mask(4, 4, 2, 1)
    assert (mask[0] == 0).all()
    assert np.array_equal(mask[3] == 0, np.eye(4, dtype=bool))
    left_and_right = np.array([0, 1, 0, 1])
    assert np.array_equal(mask[1] == 0, left_and_right[:, None] == left_and_right)
    above_and_below = np.array([0, 0, 1, 1])
    assert np.array_equal(mask[2] == 0, above_and_below[:, None] == above_and_below)


def test_position_bias_depends_on_the_offset_alone():
    rows = relative_position(3).reshape(9, 9)
    assert len(np.unique(rows)) == 25
    assert rows[0, 1] == rows[3, 4] == rows[7, 8]
    assert rows[0, 1] != rows[1, 0]
    assert (np.diag(rows) == 12).all()


def test_gradients_reach_every_temperature_and_share():
    layer = attention()
    (layer(tokens()) * torch.linspace(-1, 1, WIDTH)).sum().backward()
    for parameter in (layer.raw_temperature, layer.share_logits):
        assert parameter.grad.shape == (HEADS, 3)
        assert (parameter.grad != 0).all()
    assert {"raw_temperature", "share_logits"} <= layer.state_dict().keys()


def test_temperatures_that_are_not_learnt_get_no_gradient():
    layer = attention(1.0, learn=False)
    layer(tokens()).sum().backward()
    assert layer.raw_temperature.grad is None
    assert layer.share_logits.grad is None
