"""The translator's networks: published sizes, and what each part must not see."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.diffusionxray.munit import (
    PAPER,
    ContentEncoder,
    CriticPair,
    Critics,
    Decoder,
    Domain,
    Doubling,
    Head,
    Layer,
    Munit,
    MunitConfig,
    Residual,
    StyledResidual,
    StyleEncoder,
    adain,
)

SMALL = MunitConfig(blocks=1, mlp=16, critic_layers=2, scales=2)


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_published_sizes_are_those_of_the_dossier():
    assert PAPER.adain == 4096
    assert PAPER.content == 256
    decoder = Decoder(PAPER)
    assert [(layer.in_features, layer.out_features) for layer in decoder.mlp[::2]] == [
        (8, 256),
        (256, 256),
        (256, 4096),
    ]
    assert [layer.convolution.out_channels for layer in decoder.up[::3]] == [128, 64]
    style = [layer[0].out_channels for layer in StyleEncoder(PAPER).layers]
    assert style == [64, 128, 256, 256, 256]
    critics = Critics(PAPER)
    assert len(critics.scales) == 3
    assert [layer.out_channels for layer in critics.scales[0] if isinstance(layer, nn.Conv2d)] == [64, 128, 256, 512, 1]


def test_the_published_layers_are_of_the_published_kind():
    """Content: 7, 4 and 4 wide, the latter halving, mirrored edges, 4 residual blocks. Decoder: LayerNorm. No norm in
    discriminators, and a slope of 0.2.
    """
    content = ContentEncoder(PAPER)
    steps = [layer[0] for layer in content if isinstance(layer, Layer)]
    assert [(one.out_channels, one.kernel_size[0], one.stride[0]) for one in steps] == [
        (64, 7, 1),
        (128, 4, 2),
        (256, 4, 2),
    ]
    assert sum(isinstance(layer, Residual) for layer in content) == len(Decoder(PAPER).blocks) == 4
    critics = Critics(PAPER)
    plain = [layer for layer in (*content.modules(), *critics.modules()) if isinstance(layer, nn.Conv2d)]
    assert {layer.padding_mode for layer in plain if layer.kernel_size[0] > 1} == {"reflect"}
    over_all = Decoder(PAPER).up[1::3]
    assert [(norm.num_groups, norm.num_channels, norm.affine) for norm in over_all] == [(1, 128, True), (1, 64, True)]
    kinds = {type(layer) for scale in critics.scales for layer in scale}
    assert kinds == {nn.Conv2d, nn.LeakyReLU}
    assert {layer.negative_slope for layer in critics.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}


def test_networks_begin_as_published():
    """Domains by Kaiming, √(2 / inputs); discriminators with a standard deviation of 0.02."""
    torch.manual_seed(1)
    content, critics = Domain(PAPER).content, Critics(PAPER)
    for layer in (content[1][0], content[3].first, content[-1].second):
        assert float(layer.weight.detach().std()) == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.05)
    for layer in [one for one in critics.modules() if isinstance(one, nn.Conv2d) and one.weight.numel() > 10_000]:
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


def test_residual_blocks_add_to_what_they_are_given_and_the_style_speaks_in_both_layers():
    x, told = drawn(2, 16, 8, 8), drawn(2, 2, 2, 16, seed=2)
    for block in (Residual(16), StyledResidual(16)):
        nn.init.zeros_(block.second.weight)
        added = block(x, told) - x if isinstance(block, StyledResidual) else block(x) - x
        shift = told[:, 1, 1, :, None, None] if isinstance(block, StyledResidual) else torch.zeros(1)
        torch.testing.assert_close(added, shift.expand_as(x), rtol=0, atol=1e-5)
    block = StyledResidual(16)
    other = told.clone()
    other[:, 0] *= -1
    assert float((block(x, other) - block(x, told)).detach().abs().mean()) > 0.05


def test_the_published_network_makes_codes_and_pictures_of_the_published_shapes():
    domain, pictures = Domain(PAPER), drawn(1, 1, 64, 96)
    with torch.inference_mode():
        content, style = domain.encode(pictures)
        assert content.shape == (1, 256, 16, 24)
        assert style.shape == (1, 8)
        assert domain.decode(content, style).shape == pictures.shape
        assert [one.shape[-2:] for one in Critics(PAPER)(pictures)] == [(4, 6), (2, 3), (1, 1)]


@pytest.mark.parametrize("config", [MunitConfig(), PAPER])
def test_all_widths_are_multiples_of_16(config):
    with torch.device("meta"):
        network = nn.ModuleList([Munit(config), CriticPair(config)])
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            for channels in (layer.in_channels, layer.out_channels):
                assert channels == 1 or channels % 16 == 0


def test_adain_gives_each_channel_the_mean_and_spread_of_its_style():
    features = 5 + 3 * drawn(2, 4, 20, 20)
    gain, shift = drawn(2, 4, seed=2), drawn(2, 4, seed=3)
    styled = adain(features, gain, shift)
    torch.testing.assert_close(styled.mean((2, 3)), shift, rtol=0, atol=1e-5)
    torch.testing.assert_close(styled.std((2, 3), correction=0), gain.abs(), rtol=1e-5, atol=0)
    plain = (features - features.mean((2, 3), keepdim=True)) / features.std((2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(styled, plain * gain[..., None, None] + shift[..., None, None], rtol=1e-4, atol=1e-5)


def test_a_content_code_does_not_know_the_pictures_gain_and_offset():
    encoder, pictures = ContentEncoder(MunitConfig()), drawn(1, 1, 32, 32)
    with torch.inference_mode():
        content = encoder(pictures)
        torch.testing.assert_close(encoder(0.4 * pictures - 0.3), content, rtol=0, atol=1e-3 * float(content.std()))
        other = encoder(pictures.flip(-1))
    assert float((other - content).abs().mean()) > 0.1 * float(content.std())


def test_the_style_encoder_has_no_norm_and_knows_gain_and_offset():
    encoder, pictures = Domain(MunitConfig()).style, drawn(1, 1, 64, 64)
    norms = nn.InstanceNorm2d | nn.GroupNorm | nn.LayerNorm | nn.BatchNorm2d
    assert not any(isinstance(layer, norms) for layer in encoder.modules())
    assert any(isinstance(layer, norms) for layer in ContentEncoder(MunitConfig()).modules())
    with torch.inference_mode():
        style = encoder(pictures)
        torch.testing.assert_close(encoder(2 * pictures), 2 * style, rtol=1e-4, atol=1e-5)  # biases begin at zero
        assert float((encoder(pictures + 0.5) - style).abs().max()) > 1e-3


def test_the_style_reaches_the_picture_and_pictures_stay_within_range():
    decoder, content = Domain(SMALL).decoder, drawn(1, SMALL.content, 8, 8)
    with torch.inference_mode():
        one, other = (decoder(content, style) for style in (drawn(1, 8), drawn(1, 8, seed=2)))
    assert float((one - other).abs().mean()) > 0.01
    with torch.inference_mode():
        decoder.head.weight *= 100
        bright = decoder(content, drawn(1, 8))
    assert 0.99 < float(bright.abs().max()) <= 1


def test_doubling_is_nearest_neighbours_and_a_convolution_of_5():
    layer, x = Doubling(16, 32), drawn(2, 16, 7, 9)
    doubled = functional.interpolate(x, scale_factor=2, mode="nearest")
    framed = functional.pad(doubled, (2, 2, 2, 2), mode="replicate")
    torch.testing.assert_close(layer(x), layer.convolution(framed), rtol=0, atol=1e-5)


def test_doubling_teaches_its_kernel_what_the_plain_form_would():
    layer, x = Doubling(16, 16), drawn(1, 16, 5, 5)
    layer(x).square().sum().backward()
    folded = layer.convolution.weight.grad.clone()
    layer.zero_grad()
    doubled = functional.interpolate(x, scale_factor=2, mode="nearest")
    layer.convolution(functional.pad(doubled, (2, 2, 2, 2), mode="replicate")).square().sum().backward()
    torch.testing.assert_close(folded, layer.convolution.weight.grad, rtol=1e-4, atol=1e-3)


def test_the_head_is_a_convolution_of_7_with_mirrored_edge():
    head, x = Head(16), drawn(2, 16, 12, 20)
    plain = nn.Conv2d(16, 1, 7, padding=3, padding_mode="reflect")
    plain.load_state_dict(head.state_dict())
    torch.testing.assert_close(head(x), plain(x), rtol=0, atol=1e-5)
    for one in (head, plain):
        one(x).square().sum().backward()
    torch.testing.assert_close(head.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(head.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-3)


def test_each_discriminator_sees_half_the_resolution_of_the_one_before():
    critics, pictures = Critics(SMALL), drawn(1, 1, 32, 32)
    critics.scales[1].load_state_dict(critics.scales[0].state_dict())
    with torch.inference_mode():
        maps = critics(pictures)
        halved = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), value=torch.nan), 3, 2)
        again = critics(functional.avg_pool2d(pictures, 3, 2, 1, count_include_pad=False))[0]
    assert [one.shape[-1] for one in maps] == [8, 4]
    assert torch.equal(maps[1], again)
    assert torch.isnan(halved[0, 0, 0, 0])  # the plain mean would have taken in the edge


@pytest.mark.parametrize("config", [SMALL, MunitConfig()])
def test_the_least_side_is_the_least_that_the_discriminators_take(config):
    critics = Critics(config)
    least = config.least_px
    assert critics(drawn(1, 1, least, least))[-1].shape[-1] >= 1
    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        critics(drawn(1, 1, least // 2, least // 2))


def test_both_domains_begin_as_one_so_that_a_translation_begins_as_a_reconstruction():
    munit, pictures = Munit(SMALL), drawn(1, 1, 32, 32)
    with torch.inference_mode():
        content, style = munit.hq.encode(pictures)
        assert torch.equal(munit.lq.decode(content, style), munit.hq.decode(content, style))
        assert torch.equal(munit.lq.content(pictures), content)
    own, other = (dict(domain.named_parameters()) for domain in (munit.hq, munit.lq))
    assert not any(own[name] is other[name] for name in own)
