"""Boxes: overlaps by hand, regions aligned to the fraction of a pixel."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.deeplesion import boxes


def box(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def test_iou_of_half_overlapping_squares():
    assert boxes.iou(box(0, 0, 10, 10), box(5, 0, 15, 10)).item() == pytest.approx(1 / 3)


def test_iou_counts_the_last_pixel_where_asked():
    """Pixels 0…9 and 5…14: ten wide each, five shared, as in the papers' evaluation."""
    assert boxes.iou(box(0, 0, 9, 9), box(5, 0, 14, 9), plus_one=True).item() == pytest.approx(50 / 150)
    assert boxes.iou(box(0, 0, 9, 9), box(9, 9, 18, 18), plus_one=True).item() == pytest.approx(1 / 199)
    assert boxes.iou(box(0, 0, 9, 9), box(9, 9, 18, 18)).item() == 0


def test_iou_of_nothing_with_nothing_is_zero():
    assert boxes.iou(box(3, 3, 3, 3), box(3, 3, 3, 3)).item() == 0


def test_nms_keeps_the_better_of_two_and_what_lies_apart():
    found = torch.cat([box(0, 0, 10, 10), box(1, 0, 11, 10), box(50, 50, 60, 60)])
    assert boxes.nms(found, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]
    assert boxes.nms(found, torch.tensor([0.5, 0.9, 0.1]), 0.9).tolist() == [1, 0, 2]
    assert boxes.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_what_is_dropped_drops_nothing_itself():
    """b overlaps a and c; a and c do not overlap: with b gone, c stays."""
    row = torch.cat([box(0, 0, 10, 10), box(4, 0, 14, 10), box(8, 0, 18, 10)])
    assert boxes.nms(row, torch.tensor([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]


@given(
    st.lists(st.floats(0, 400), min_size=4, max_size=4),
    st.lists(st.floats(2, 90), min_size=4, max_size=4),
)
def test_decoding_undoes_encoding(corner, size):
    first = box(corner[0], corner[1], corner[0] + size[0], corner[1] + size[1])
    reference = box(corner[2], corner[3], corner[2] + size[2], corner[3] + size[3])
    # Growth is limited to 16 times either way.
    if max(size[0] / size[2], size[2] / size[0], size[1] / size[3], size[3] / size[1]) < 15.9:
        again = boxes.decode(boxes.encode(first, reference, boxes.ENCODING_SCALE), reference, boxes.ENCODING_SCALE)
        torch.testing.assert_close(again, first, atol=2e-2, rtol=0)


def test_anchors_sit_on_cell_centres_with_the_area_of_their_side():
    made = boxes.anchors((3, 2), 8, (16.0, 32.0), (0.5, 1.0, 2.0))
    assert made.shape == (3 * 2 * 6, 4)
    centres = (made[:, :2] + made[:, 2:]) / 2
    assert centres[0].tolist() == [4, 4]
    assert centres[6].tolist() == [12, 4]  # columns first
    assert centres[12].tolist() == [4, 12]
    torch.testing.assert_close(boxes.area(made)[:6], torch.tensor([256.0] * 3 + [1024.0] * 3))
    height_over_width = (made[:3, 3] - made[:3, 1]) / (made[:3, 2] - made[:3, 0])
    torch.testing.assert_close(height_over_width, torch.tensor([0.5, 1.0, 2.0]))


def ramp(height: int, width: int, stride: float) -> torch.Tensor:
    """(1, 2, H, W): the x and the y coordinate, in pixels, of each feature's centre."""
    y, x = ((torch.arange(count, dtype=torch.float32) + 0.5) * stride for count in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]


def test_nms_of_all_at_once_is_nms_one_by_one():
    drawing = torch.Generator().manual_seed(4)
    low = torch.rand(3, 80, 2, generator=drawing) * 40
    found = torch.cat([low, low + 4 + 12 * torch.rand(3, 80, 2, generator=drawing)], -1)  # best first
    valid = torch.rand(3, 80, generator=drawing) > 0.1
    kept = boxes.kept_by_nms(found, valid, 0.3)
    for image in range(3):
        chosen: list[int] = []
        for index in torch.nonzero(valid[image])[:, 0].tolist():
            if not chosen or boxes.iou(found[image, [index]], found[image, chosen]).max() <= 0.3:
                chosen.append(index)
        assert torch.nonzero(kept[image])[:, 0].tolist() == chosen
        assert 5 < len(chosen) < 60


@pytest.mark.parametrize("stride", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("size", [7, 14])
def test_roi_align_on_a_ramp_gives_the_cells_centres(stride, size):
    """The mean of a linear function over a cell is its value in the middle: half-pixel and stride errors show."""
    features = ramp(20, 30, stride)
    x1, y1, x2, y2 = 5.3 * stride, 2.2 * stride, 21.7 * stride, 17.1 * stride
    pooled = boxes.roi_align(features, torch.tensor([[0, x1, y1, x2, y2]]), stride=stride, size=size)
    cells = (torch.arange(size) + 0.5) / size
    torch.testing.assert_close(pooled[0, 0], (x1 + cells * (x2 - x1)).expand(size, size), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(pooled[0, 1], (y1 + cells * (y2 - y1))[:, None].expand(size, size), rtol=1e-5, atol=1e-3)


def test_roi_align_keeps_the_order_of_regions_and_takes_each_from_its_image():
    features = torch.stack([torch.full((1, 8, 8), value) for value in (1.0, 2.0, 3.0)])
    rois = torch.tensor([[2, 1, 1, 5, 5], [0, 1, 1, 5, 5], [1, 0, 0, 8, 8], [0, 2, 2, 3, 3]], dtype=torch.float32)
    pooled = boxes.roi_align(features, rois, stride=1, size=2)
    assert pooled[:, 0, 0, 0].tolist() == [3, 1, 2, 1]
    assert boxes.roi_align(features, torch.zeros(0, 5), stride=1, size=2).shape == (0, 1, 2, 2)


def test_roi_align_passes_gradient_to_the_features_in_the_region_only():
    features = torch.zeros(1, 1, 10, 10, requires_grad=True)
    boxes.roi_align(features, torch.tensor([[0.0, 2, 3, 6, 7]]), stride=1, size=4).sum().backward()
    assert features.grad is not None
    assert features.grad.sum().item() == pytest.approx(16)  # every cell's weights add up to one
    outside = features.grad.clone()
    outside[0, 0, 2:8, 1:7] = 0
    assert not outside.any()


def test_anchors_that_inference_asked_for_first_serve_training_too():
    with torch.inference_mode():
        made = boxes.anchors((5, 7), 4, (16.0,), (1.0,))
    assert not made.is_inference()
    scale = torch.ones(4, requires_grad=True)
    (made * scale).sum().backward()  # saves the anchors
    assert torch.equal(scale.grad, made.sum(0))


def test_regions_carry_their_image():
    rois = boxes.with_image([box(1, 2, 3, 4), torch.zeros(0, 4), box(5, 6, 7, 8)])
    assert rois.tolist() == [[0, 1, 2, 3, 4], [2, 5, 6, 7, 8]]
