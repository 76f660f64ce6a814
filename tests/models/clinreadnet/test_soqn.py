"""Edges by hand, and the two opinions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.clinreadnet.soqn import SOQN, EdgePath, Sobel


def ramp(down: float, across: float, side: int = 12) -> torch.Tensor:
    axis = torch.arange(side, dtype=torch.float32)
    return (down * axis[:, None] + across * axis)[None, None]


@settings(max_examples=30)
@given(st.floats(-10, 10, width=32))
def test_a_constant_has_no_edges_not_even_at_the_border(level):
    assert float(Sobel()(torch.full((1, 1, 9, 7), level)).detach().abs().max()) <= 1e-6 * max(abs(level), 1)


@settings(max_examples=30)
@given(st.floats(-2, 2, width=32), st.floats(-2, 2, width=32))
def test_the_slope_of_a_ramp_is_constant_and_right(down, across):
    maps = Sobel()(ramp(down, across)).detach()[0, :, 1:-1, 1:-1]
    root = 2**0.5
    wanted = [abs(across), abs(across - down) / root, abs(down), abs(across + down) / root]
    for found, slope in zip(maps, wanted, strict=True):
        assert torch.allclose(found, torch.tensor(slope), atol=2e-5)


def test_a_quarter_turn_swaps_the_maps():
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    maps, turned = Sobel()(x), Sobel()(torch.rot90(x, 1, (2, 3)))
    for here, there in ((0, 2), (2, 0), (1, 3), (3, 1)):
        assert torch.allclose(torch.rot90(maps[:, here], 1, (1, 2)), turned[:, there], atol=1e-6)


def test_only_the_gains_are_learnt():
    sobel = Sobel()
    assert [name for name, _ in sobel.named_parameters()] == ["gain"]
    assert "kernels" in sobel.state_dict()
    before = sobel(ramp(1, 0))
    with torch.no_grad():
        sobel.gain.copy_(torch.tensor([1.0, 1.0, -3.0, 1.0]))
    assert torch.allclose(sobel(ramp(1, 0))[:, 2], 3 * before[:, 2])


def test_faint_noise_survives_half_precision(tiny):
    """5 HU in soft tissue, in units of the network's input."""
    noise = 5 / 1400 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    soqn = SOQN(tiny, 32)
    exact = soqn.edges.sobel(0.74 + noise)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(soqn.edges.sobel(0.74 + noise), exact)
        assert soqn.fuse(0.74 + noise)[1].shape == (1, 8, 8, 16)
        assert soqn.embed(0.74 + noise).dtype == torch.bfloat16  # what fuse must avoid
        tokens, edges = soqn.fuse(0.74 + noise)
    bare = soqn.embed_norm(soqn.embed(0.74 + noise).permute(0, 2, 3, 1))
    assert torch.allclose(tokens - 0.5 * edges, bare, atol=2e-2)


def test_edges_come_out_on_the_grid_of_the_tokens():
    assert EdgePath(16)(torch.zeros(2, 1, 32, 64)).shape == (2, 8, 16, 16)


def test_the_gate_starts_half_open(tiny):
    soqn = SOQN(tiny, 32)
    x = torch.rand(1, 1, 32, 32)
    tokens, edges = soqn.fuse(x)
    bare = soqn.embed_norm(soqn.embed(x).permute(0, 2, 3, 1))
    assert torch.allclose(tokens, bare + 0.5 * edges)


def test_the_opinion_is_half_context_and_half_detail(tiny):
    torch.manual_seed(1)
    soqn = SOQN(tiny, 32)
    features, edges = torch.randn(2, 4, 4, 32), torch.randn(2, 8, 8, 16)
    opinions, worth = soqn.map(features)
    assert opinions.shape == (2, 4, 4, 21)
    assert torch.allclose(worth.sum((1, 2)), torch.ones(2))
    assert torch.allclose(opinions.sum(-1), torch.ones(2, 4, 4))
    context = soqn.whole(torch.cat([features.mean((1, 2)), edges.mean((1, 2))], 1)).softmax(-1)
    detail = torch.einsum("bhw,bhwk->bk", worth, opinions)
    assert torch.allclose(soqn.judge(features, edges), (context + detail) / 2, atol=1e-6)


def test_without_the_local_path_there_is_no_map(tiny):
    from dataclasses import replace

    soqn = SOQN(replace(tiny, local=False, sobel=False), 32)
    assert soqn.edges is None
    with pytest.raises(ValueError, match="no local path"):
        soqn.map(torch.zeros(1, 4, 4, 32))
    assert soqn.judge(torch.zeros(1, 4, 4, 32), None).shape == (1, 21)
