"""RED-CNN as published: shapes, parameters, tiles."""

import torch
from torch import nn

from models.lidnet.redcnn import LOWEST_HU, RADIUS_PX, RedCnn, build_redcnn, denoise_tiled


def network() -> RedCnn:
    torch.manual_seed(2)
    torch.set_num_threads(1)
    return build_redcnn().eval()


def sizes_of(net: RedCnn, side: int) -> list[int]:
    seen: list[int] = []
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [layer.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1])) for layer in layers]
    net(torch.zeros(1, 1, side, side))
    for hook in hooks:
        hook.remove()
    return seen


def test_parameters_are_those_of_the_paper() -> None:
    assert sum(parameter.numel() for parameter in network().parameters()) == 1_848_865


def test_shape_chain_of_a_64_pixel_patch() -> None:
    assert sizes_of(network(), 64) == [60, 56, 52, 48, 44, 48, 52, 56, 60, 64]


@torch.no_grad()
def test_tiles_give_the_whole_image() -> None:
    net = network()
    hu = 300 * torch.randn(1, 1, 100, 90)
    torch.testing.assert_close(denoise_tiled(net, hu, tile_px=48), net(hu), atol=2e-3, rtol=1e-5)


@torch.no_grad()
def test_a_pixel_reaches_twenty_pixels_far() -> None:
    net = network()
    for module in net.modules():  # rectifiers that all pass, so that reach is not hidden
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.fill_(0.01)
    hu = torch.full((1, 1, 61, 61), LOWEST_HU)  # the network's 0: what does not reach stays exactly 0
    hu[0, 0, 30, 30] += 500
    touched = torch.nonzero(net(hu)[0, 0] != LOWEST_HU)
    assert touched.min() == 30 - RADIUS_PX
    assert touched.max() == 30 + RADIUS_PX


def test_hu_below_the_lowest_input_can_be_given_back() -> None:
    net = network()
    with torch.no_grad():
        net.decode[-1].bias.fill_(-0.2)  # type: ignore[union-attr, operator]
        assert net(torch.full((1, 1, 32, 32), -1024.0)).min() < -1500
