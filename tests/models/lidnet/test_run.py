"""A volume in, a volume out: grid, padding, repeatability, precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.contract import ModelError, SourceRef, Volume
from models.deeplesion.config import NetworkConfig as DetectorConfig
from models.deeplesion.network import build as build_detector
from models.lidnet.network import build
from models.lidnet.run import prepare, run

CPU = torch.device("cpu")


def volume_of(voxels, padding=None) -> Volume:
    count = len(voxels)
    return Volume(
        voxels=voxels.astype(np.float32),
        affine=np.eye(4),
        spacing_zyx_mm=(1.0, 0.7, 0.7),
        slice_origins_mm=np.zeros((count, 3)),
        sources=tuple(SourceRef(f"1.2.{k}") for k in range(count)),
        padding=padding,
    )


@pytest.fixture
def network(small):
    torch.manual_seed(1)
    made = build(small.network)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return prepare(made, CPU, half=False)


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    return volume_of(200 * rng.standard_normal((7, 70, 53)))


def test_any_height_and_width_come_back(network, volume):
    result = run(network, volume)
    assert result.shape == volume.voxels.shape
    assert result.dtype == np.float32
    assert not np.array_equal(result, volume.voxels)


def test_same_slice_same_bits_wherever_it_lies(network, volume):
    """In another batch, at another place, alone."""
    result = run(network, volume)
    turned = run(network, volume_of(volume.voxels[::-1]))
    assert np.array_equal(result, turned[::-1])
    for index in (0, 4, 6):
        assert np.array_equal(run(network, volume_of(volume.voxels[index : index + 1]))[0], result[index])


def test_a_detector_that_is_loaded_and_used_changes_no_bit(network, volume):
    alone = run(network, volume)
    detector = build_detector(
        DetectorConfig(
            widths=(16, 16),
            fpn_channels=16,
            rpn_width=16,
            head_widths=(16, 16),
            mask_width=16,
            anchor_sides=((16.0,), (32.0,)),
        )
    ).eval()
    detector.detect(torch.zeros(1, 3, 64, 64))
    assert np.array_equal(run(network, volume), alone)


def test_padding_is_untouched_and_has_no_influence(network, volume):
    padding = np.zeros(volume.voxels.shape, bool)
    padding[:, :, :9] = True
    results = []
    for value in (-2048, -3024):
        voxels = np.where(padding, np.float32(value), volume.voxels)
        results.append(run(network, volume_of(voxels, padding)))
        assert (results[-1][padding] == value).all()
    assert np.array_equal(results[0][~padding], results[1][~padding])


def test_the_input_is_left_alone(network, volume):
    before = volume.voxels.copy()
    run(network, volume)
    assert np.array_equal(before, volume.voxels)


def test_tells_how_far_it_is(network, volume):
    seen: list[tuple[int, int]] = []
    run(network, volume, lambda done, total: seen.append((done, total)))
    assert seen == [(4, 7), (7, 7)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_values_that_are_not_finite(network, volume, value):
    voxels = volume.voxels.copy()
    voxels[0, 0, 0] = value
    with pytest.raises(ModelError, match="not finite"):
        run(network, replace(volume, voxels=voxels))


def test_refuses_tiny_slices(network):
    with pytest.raises(ModelError, match="at least 16"):
        run(network, volume_of(np.zeros((2, 12, 40))))


def test_withholds_a_result_that_is_not_finite(network, volume):
    with torch.no_grad():
        network.body.tail.bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="result is not finite"):
        run(network, volume)
