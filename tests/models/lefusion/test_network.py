"""The U-Net: the published size, and what it may mix."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.lefusion.config import CROP_ZYX, NETWORKS, PAPER
from models.lefusion.network import BUCKETS, FARTHEST, DepthAttention, _turned, buckets, build

UNUSED = 16
"""The released texture network also has an embedding of "no histogram" that is never used."""


def parameters(config):
    with torch.device("meta"):
        return sum(each.numel() for each in build(config).parameters())


def woken(network):
    """With every parameter away from its first value, so that nothing is the identity by chance."""
    torch.manual_seed(1)
    with torch.no_grad():
        for each in network.parameters():
            each.add_(0.05 * torch.randn_like(each))
    return network.eval()


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    assert parameters(PAPER) + UNUSED == 35_834_897
    cardiac = replace(PAPER, inputs=2, outputs=2, width=72, condition=32)
    assert round(parameters(cardiac) / 1e6, 1) == 44.9
    assert NETWORKS["texture"]["gpu"] == PAPER


def test_an_evaluation_costs_what_the_dossier_says():
    with torch.device("meta"):
        network = build(PAPER)
        given = torch.zeros(1, 1, *CROP_ZYX), torch.zeros(1), torch.zeros(1, 16)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            assert network(*given).shape == given[0].shape
    assert counted.get_total_flops() / 1e9 == pytest.approx(505, rel=0.02)


def test_the_size_for_two_cores_costs_a_fortieth_of_it():
    with torch.device("meta"):
        network = build(NETWORKS["texture"]["cpu"])
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            network(torch.zeros(1, 1, *CROP_ZYX), torch.zeros(1), torch.zeros(1, 16))
    assert counted.get_total_flops() / 1e9 < 14


@pytest.mark.parametrize("config", ["tiny", "published"])
def test_slices_are_mixed_by_attention_alone(tiny, config):
    if config == "published":
        tiny = replace(PAPER, width=8, norm="channel", heads=2, head_width=8)
    network = woken(build(tiny))
    given = torch.randn(1, 1, 5, 16, 16)
    other = given.clone()
    other[:, :, 1] += 1
    told = torch.tensor([7.0]), torch.rand(1, 16)
    with torch.no_grad():
        moved = (network(given, *told) - network(other, *told)).abs().amax((0, 1, 3, 4))
        assert (moved > 1e-5).all()
        for layer in network.modules():
            if isinstance(layer, DepthAttention):
                layer.out.weight.zero_()
        alone = (network(given, *told) - network(other, *told)).abs().amax((0, 1, 3, 4))
    assert alone[1] > 1e-5
    assert torch.equal(alone[[0, 2, 3, 4]], torch.zeros(4))


def test_the_order_of_slices_matters(tiny):
    network = woken(build(tiny))
    given, told = torch.randn(1, 1, 6, 8, 8), (torch.tensor([7.0]), torch.rand(1, 16))
    with torch.no_grad():
        upside_down = network(given.flip(2), *told).flip(2)
        assert not torch.allclose(upside_down, network(given, *told), atol=1e-4)


def test_time_and_histogram_are_heard(tiny):
    network = woken(build(tiny))
    given = torch.randn(1, 1, 3, 8, 8)
    first, second = torch.eye(16)[:1], torch.eye(16)[1:2]
    with torch.no_grad():
        told = network(given, torch.tensor([7.0]), first)
        assert not torch.allclose(told, network(given, torch.tensor([200.0]), first), atol=1e-4)
        assert not torch.allclose(told, network(given, torch.tensor([7.0]), second), atol=1e-4)
    with pytest.raises(ValueError, match="histogram"):
        network(given, torch.tensor([7.0]))
    with pytest.raises(ValueError, match="histogram"):
        build(replace(tiny, condition=0))(given, torch.tensor([7.0]), first)


def test_the_small_size_sees_a_large_crop_as_it_sees_a_small_one(tiny):
    """Without statistics over the crop, what is far in the plane has no say."""
    network = woken(build(replace(tiny, middle_planar=False)))
    given, told = torch.randn(1, 1, 3, 128, 16), (torch.tensor([7.0]), torch.rand(1, 16))
    with torch.no_grad():
        part = network(given[..., :64, :], *told)
        whole = network(given, *told)
    assert torch.allclose(part[..., :16, :], whole[..., :16, :], atol=1e-5)


def test_buckets_tell_near_slices_apart_and_both_directions():
    reach = torch.arange(-100, 101)
    found = buckets(reach)
    near = (reach.abs() < BUCKETS // 4) & (reach != 0)
    assert len(found[near].unique()) == int(near.sum())
    assert found.min() == 0
    assert found.max() == BUCKETS - 1
    assert (found[reach >= FARTHEST] == BUCKETS - 1).all()
    assert set(found[reach > 0].tolist()).isdisjoint(found[reach <= 0].tolist())
    assert (found[reach > 0].diff() >= 0).all()


def test_turned_tokens_know_how_far_apart_they_are_and_nothing_else():
    turns = DepthAttention(PAPER, 64).turns
    angle = torch.arange(32)[:, None] * turns
    q, k = torch.randn(2, 1, 32)
    products = _turned(q.expand(32, -1), angle) @ _turned(k.expand(32, -1), angle).T
    for offset in (-5, 0, 1, 12):
        along = products.diagonal(offset)
        assert torch.allclose(along, along[:1].expand_as(along), atol=1e-3)
    assert products.diagonal(1)[0] != pytest.approx(products.diagonal(-1)[0].item(), abs=1e-2)
    assert products.diagonal()[0] == pytest.approx((q @ k.T).item(), abs=1e-3)
