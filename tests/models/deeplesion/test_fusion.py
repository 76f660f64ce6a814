"""Several images of three slices, joined where a region is judged (3DCE)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.contract import ModelError
from models.deeplesion import boxes as geometry
from models.deeplesion.config import POOLED, SINGLE, THREE_DCE, FusionConfig, NetworkConfig, offsets_of
from models.deeplesion.fusion import FusedHead, central, images_of
from models.deeplesion.losses import Targets
from models.deeplesion.network import Detector, build, shaped_like


@pytest.fixture
def nine(tiny: NetworkConfig) -> NetworkConfig:
    """Three images of three slices."""
    return replace(tiny, offsets_mm=offsets_of(9), fusion=FusionConfig(per_cell=2, width=24))


@pytest.fixture
def fused(nine: NetworkConfig) -> Detector:
    torch.manual_seed(0)
    network = build(nine).eval()
    # Untrained, the heads would say the same of every region.
    for layer in (network.roi_head.scores, network.roi_head.deltas):
        torch.nn.init.normal_(layer.weight)  # type: ignore[arg-type]
    return network


def stack(images: int = 1, slices: int = 9, side: int = 64) -> torch.Tensor:
    return torch.randn(images, slices, side, side, generator=torch.Generator().manual_seed(1)) * 300


def test_shapes_of_the_published_network() -> None:
    """Dossier 4.3: nine images, VGG-16 at stride 8, 490 channels each, 2048 units."""
    with torch.device("meta"):
        network = build(replace(THREE_DCE, categories=SINGLE))
        (level,) = network.features(torch.empty(1, 27, 512, 512))
        head = network.roi_head
        assert isinstance(head, FusedHead)
        logits, deltas = head(torch.empty(5, 90, 7, 7))
    assert level.shape == (1, 9 * 512, 64, 64)
    assert network.backbone.layers[0].weight.shape[1] == 3
    assert head.cells.weight.shape == (490, 512, 1, 1)
    assert head.full.weight.shape == (2048, 9 * 490)
    assert (logits.shape, deltas.shape) == ((5, 2), (5, 4))


def test_every_image_goes_through_the_same_backbone(fused: Detector) -> None:
    """The features of an image do not hang on its place in the stack, nor on the others."""
    hu = stack()
    level = fused.features(hu)[0]
    width = level.shape[1] // 3
    alone = replace(fused.config, offsets_mm=offsets_of(3), fusion=None)
    single = build(alone).eval()
    single.backbone.load_state_dict(fused.backbone.state_dict())
    for number in range(3):
        torch.testing.assert_close(
            level[:, number * width : (number + 1) * width],
            single.features(hu[:, 3 * number : 3 * number + 3])[0],
            rtol=1e-4,
            atol=1e-4,
        )


def test_where_to_look_is_decided_on_the_central_image_alone(fused: Detector) -> None:
    hu, other = stack(), stack()
    other[:, :3] = 40
    other[:, 6:] = -900
    for before, after in zip(
        fused.rpn_outputs(fused.features(hu)), fused.rpn_outputs(fused.features(other)), strict=True
    ):
        torch.testing.assert_close(before, after)
    other[:, 4] += 100
    changed = fused.rpn_outputs(fused.features(other))[0]
    assert not torch.allclose(fused.rpn_outputs(fused.features(hu))[0], changed)


@pytest.mark.parametrize("slices", [slice(0, 3), slice(3, 6), slice(6, 9)])
def test_what_a_region_is_hangs_on_every_image(fused: Detector, slices: slice) -> None:
    rois = torch.tensor([[0, 10.0, 12, 40, 44]])
    hu, other = stack(), stack()
    other[:, slices] += 200
    for before, after in zip(
        fused.classify(fused.features(hu), rois), fused.classify(fused.features(other), rois), strict=True
    ):
        assert not torch.allclose(before, after, atol=1e-4)


def test_images_are_not_interchangeable(fused: Detector) -> None:
    rois = torch.tensor([[0, 10.0, 12, 40, 44]])
    hu = stack()
    turned = torch.cat([hu[:, 6:], hu[:, 3:6], hu[:, :3]], 1)
    before, after = (fused.classify(fused.features(one), rois)[0] for one in (hu, turned))
    assert not torch.allclose(before, after, atol=1e-4)


def test_a_cell_of_a_region_takes_its_own_channels_of_every_image(fused: Detector) -> None:
    """Against pooling all channels in all cells and picking afterwards."""
    head = fused.roi_head
    assert isinstance(head, FusedHead)
    level = fused.features(stack(2))[0]
    rois = torch.tensor([[0, 8.0, 10, 40, 44], [1, 20, 4, 60, 30]])
    found = geometry.position_sensitive_align(head.maps(level), rois, stride=4, size=POOLED)
    assert found.shape == (2, 3 * 2, 7, 7)
    width = level.shape[1] // 3
    for number in range(3):
        maps = head.cells(level[:, number * width : (number + 1) * width])
        everything = geometry.roi_align(maps, rois, stride=4, size=POOLED)
        for row in range(POOLED):
            for column in range(POOLED):
                cell = 2 * (row * POOLED + column)
                torch.testing.assert_close(
                    found[:, 2 * number : 2 * number + 2, row, column], everything[:, cell : cell + 2, row, column]
                )


def test_regions_of_both_levels_come_back_in_their_order(fused: Detector) -> None:
    levels = fused.features(stack(1, side=160))
    rois = torch.tensor([[0, 0.0, 0, 150, 150], [0, 10, 12, 30, 34], [0, 5, 5, 120, 140], [0, 60, 60, 80, 80]])
    together = fused.classify(levels, rois)[0]
    one_by_one = torch.cat([fused.classify(levels, roi[None])[0] for roi in rois])
    torch.testing.assert_close(together, one_by_one)


def test_detects_and_learns(nine: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = build(nine)
    (found,) = network.eval().detect(stack())
    assert found.masks is not None
    assert len(found.masks) == len(found.boxes)
    targets = [Targets(torch.tensor([[10.0, 12, 40, 44]]), torch.tensor([1]))] * 2
    losses = network.train().losses(stack(2), targets, generator=torch.Generator().manual_seed(2))
    torch.stack(list(losses.values())).sum().backward()
    head = network.roi_head
    assert isinstance(head, FusedHead)
    for layer in (head.cells, head.full, head.scores):
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("slices", [6, 7, 18])
def test_slices_that_make_no_odd_number_of_images_are_refused(nine: NetworkConfig, slices: int) -> None:
    with pytest.raises(ModelError, match=f"{slices} slices"):
        images_of(replace(nine, offsets_mm=offsets_of(slices)))


def test_the_central_image_is_the_middle_of_the_channels() -> None:
    level = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert central(level, 3).flatten().tolist() == [2, 3]
    assert torch.equal(central(level, 1), level)


@pytest.mark.parametrize(
    ("slices", "fusion"), [(1, None), (3, None), (9, None), (9, FusionConfig(per_cell=2, width=24))]
)
def test_weights_tell_the_network_that_they_are_of(
    tiny: NetworkConfig, slices: int, fusion: FusionConfig | None
) -> None:
    config = replace(tiny, categories=tuple("abcd"), offsets_mm=offsets_of(slices), fusion=fusion)
    shapes = {name: tensor.shape for name, tensor in build(config).state_dict().items()}
    found = shaped_like(shapes, tiny)
    assert (found.offsets_mm, found.fusion) == (config.offsets_mm, fusion)
    assert len(found.categories) == 4
    build(found).load_state_dict(build(config).state_dict())
    with pytest.raises(ModelError, match="not the weights"):
        shaped_like({"roi_head.scores.bias": (2,)}, tiny)
