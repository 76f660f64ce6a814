"""The U-Net: the published counts, shapes, and what the shipped size leaves out."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.diffusionxray.config import NETWORKS, PAPER, SHAPES, TRAINING, CropConfig, fitting
from models.diffusionxray.network import FullAttention, LinearAttention, TimeEmbedding, build


def parameters_and_gflop(config, side_px):
    with torch.device("meta"):
        network = build(config)
        x = torch.empty(1, config.inputs, side_px, side_px)
        time = torch.zeros(1) if config.time else None
    with FlopCounterMode(display=False) as counter:
        assert network(x, time).shape == (1, 1, side_px, side_px)
    return sum(one.numel() for one in network.parameters()), counter.get_total_flops() / 1e9


@pytest.mark.parametrize(("side_px", "gflop"), [(1024, 217.5), (512, 54.4), (256, 13.6)])
def test_the_published_size_has_the_published_cost(side_px, gflop):
    parameters, counted = parameters_and_gflop(PAPER, side_px)
    assert round(parameters / 1e6, 1) == 91.4
    assert round(counted, 1) == gflop


def test_the_published_network_has_the_published_shape():
    with torch.device("meta"):
        network = build(PAPER)
    assert PAPER.widths == (16, 32, 64, 128, 256, 512, 512, 512)
    assert PAPER.multiple == 128
    assert network.stem.weight.shape == (10, 2, 7, 7)
    assert [stage.look is not None for stage in network.down] == [False] * 4 + [True] * 4
    assert [stage.look is not None for stage in network.up] == [False] * 4 + [True] * 3
    assert len(network.shrink) == len(network.grow) == 7
    norms = [one for name, one in network.named_modules() if isinstance(one, nn.GroupNorm) and "look" not in name]
    assert {one.num_groups for one in norms} == {8}
    assert [one.weight.shape for one in network.time.layers[::2]] == [(64, 16), (64, 64)]
    assert network.finest is None


def test_the_conditional_network_is_trained_in_the_published_shape_with_and_without_its_full_resolution_shortcut():
    """The shortcut is two blocks of 16 channels at 1024²: 25 GFLOP of convolutions, by the sizes of their kernels."""
    assert SHAPES["shipped"] is NETWORKS["ddpm"]
    plain, skipping = (parameters_and_gflop(SHAPES[shape], 1024) for shape in ("paper", "paper-full-skip"))
    assert (round(plain[0] / 1e6, 1), round(plain[1], 1)) == (91.4, 217.5)
    blocks = (32 * 16 * 9 + 3 * 16 * 16 * 9 + 32 * 16) * 2 * 1024**2 / 1e9
    assert skipping[1] - plain[1] == pytest.approx(blocks, rel=1e-3)


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_crops_fit_every_shape_and_every_bank(preset):
    for network in SHAPES.values():
        crop_px = fitting(TRAINING[preset], network).crop_px
        assert crop_px % network.multiple == 0
        assert TRAINING[preset].crop_px <= crop_px <= CropConfig().bank_px
    assert fitting(TRAINING[preset], SHAPES["shipped"]) == TRAINING[preset]


@pytest.mark.parametrize(
    ("stage", "gflop", "million"), [("ddpm", 543, 2.0), ("regressor", 541, 1.9), ("refiner", 541, 2.0)]
)
def test_the_shipped_size_is_for_two_cores(stage, gflop, million):
    parameters, counted = parameters_and_gflop(NETWORKS[stage], 2048)
    assert round(counted) == gflop
    assert round(parameters / 1e6, 1) == million
    assert all(width % 16 == 0 for width in (NETWORKS[stage].stem, *NETWORKS[stage].widths))


def test_mean_and_one_sample_fit_in_a_minute_of_two_cores():
    """Five evaluations of 2048², which is not cut, at the 52 GFLOP/s of dossier 8."""
    total = sum(evaluations * parameters_and_gflop(NETWORKS[stage], 2048)[1]
                for stage, evaluations in (("regressor", 1), ("refiner", 4)))  # fmt: skip
    assert total / 52 < 60


def test_both_sizes_run(tiny):
    small = replace(
        PAPER, stem=16, mults=(1, 2, 2, 2), down_attention=(2, 3), up_attention=(1,),
    )  # fmt: skip
    for config in (small, replace(tiny, inputs=2)):
        network = build(config).eval()
        with torch.inference_mode():
            out = network(torch.randn(2, 2, 32, 48), torch.tensor([0.0, 1999.0]))
        assert out.shape == (2, 1, 32, 48)
        assert out.isfinite().all()


def test_time_matters_and_is_refused_where_there_is_none(tiny):
    network = build(tiny).eval()
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        assert not torch.equal(network(x, torch.tensor([1.0])), network(x, torch.tensor([2.0])))
        with pytest.raises(ValueError, match="time"):
            network(x)
        with pytest.raises(ValueError, match="time"):
            build(replace(tiny, time=False))(x, torch.tensor([1.0]))


def test_time_becomes_sines_and_cosines():
    embedding = TimeEmbedding(4, 4, scale=2.0)
    for layer in (embedding.layers[0], embedding.layers[2]):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    embedding.layers[1] = torch.nn.Identity()
    expected = [math.sin(6), math.sin(6e-4), math.cos(6), math.cos(6e-4)]
    torch.testing.assert_close(embedding(torch.tensor([3.0]))[0], torch.tensor(expected))


def test_the_untrained_regressor_is_the_identity(tiny):
    network = build(replace(tiny, time=False, residual=True))
    x = torch.randn(2, 1, 16, 32)
    assert torch.equal(network(x), x)


@pytest.mark.parametrize(
    ("switches", "local"),
    [
        ({}, True),
        ({"norm": "group"}, False),
        ({"middle_attention": True}, False),
        ({"down_attention": (1,)}, False),
        ({"up_attention": (1,)}, False),
    ],
)
def test_far_pixels_matter_only_with_statistics_or_attention_over_the_image(tiny, switches, local):
    x = torch.randn(1, 1, 128, 16, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[:, :, 112:] = 3.0  # the layers reach 81 pixels at most
    network = build(replace(tiny, **switches)).eval()
    with torch.inference_mode():
        one, two = (network(image, torch.zeros(1))[:, :, :24] for image in (x, other))
    assert torch.allclose(one, two, rtol=0, atol=1e-6) is local


def test_the_full_resolution_shortcut_is_a_switch(tiny):
    """Without it the published network tells nothing of the finest level's features (dossier 13.11)."""
    for full_skip in (True, False):
        network = build(replace(tiny, full_skip=full_skip))
        assert (network.finest is not None) is full_skip
        network(torch.randn(1, 1, 16, 16), torch.zeros(1)).sum().backward()
        assert network.stem.weight.grad.abs().sum() > 0


def test_attention_is_what_it_is_called(tiny):
    torch.manual_seed(1)
    x = torch.randn(1, 16, 3, 5)
    full, linear = FullAttention(tiny, 16), LinearAttention(tiny, 16)
    for attention in (full, linear):
        q, k, v = attention.queries(attention.norm(x)).reshape(3, 4, 32, 15)
        told = torch.zeros(4, 32, 15)
        for head in range(4):
            if attention is full:
                for i in range(15):
                    share = torch.stack([(q[head, :, i] * k[head, :, j]).sum() / 32**0.5 for j in range(15)]).softmax(0)
                    told[head, :, i] = v[head] @ share
            else:
                context = sum(torch.outer(k[head].softmax(1)[:, n], v[head][:, n]) for n in range(15))
                told[head] = context.T @ (q[head].softmax(0) / 32**0.5)
        expected = x + attention.out(told.reshape(1, 128, 3, 5))
        torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)
