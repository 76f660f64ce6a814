"""What every model on offer must keep to."""

import numpy as np
import pytest
import torch

from models.catalogue import catalogue
from models.contract import ModelError, SourceRef, Volume
from models.weights import FOLDER

OFFERED = catalogue()
MOST_BYTES = 32 * 2**20


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=OFFERED.values(), ids=OFFERED.keys())
def model(request):
    return request.param


@pytest.fixture
def volume() -> Volume:
    """Soft tissue in air with noise and a reconstruction circle: odd sizes on purpose."""
    rng = np.random.default_rng(1)
    axis = np.arange(75) - 37
    circle = np.hypot(axis[:, None], axis[:61] + 7) > 37
    voxels = np.where(np.hypot(axis[:, None], axis[:61] + 7) < 25, 50.0, -1000.0) + 30 * rng.standard_normal(
        (5, 75, 61)
    )
    padding = np.broadcast_to(circle, voxels.shape).copy()
    return Volume(
        voxels=np.where(padding, -2048, voxels).astype(np.float32),
        affine=np.eye(4),
        spacing_zyx_mm=(2.0, 0.8, 0.8),
        slice_origins_mm=np.zeros((5, 3)),
        sources=tuple(SourceRef(f"1.2.{k}") for k in range(5)),
        padding=padding,
    )


def test_the_denoiser_is_on_offer():
    assert "lidnet-fast" in OFFERED


def test_nothing_without_weights_is_on_offer(tmp_path):
    assert catalogue(tmp_path) == {}


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) <= MOST_BYTES


def test_every_weights_file_has_its_card_and_its_model():
    stems = {path.stem for path in FOLDER.glob("*.safetensors")}
    assert stems == {path.stem for path in FOLDER.glob("*.toml")} == {model.weights for model in OFFERED.values()}


def test_the_card_says_what_a_reader_needs(model):
    card = model.card()
    assert card.name == model.name
    assert card.licence == "Apache-2.0"
    assert len(card.sha256) == 64
    assert card.limits
    assert card.metrics
    for collection in card.collections:
        assert collection["name"]
        assert collection["licence"]
        assert collection["attribution"]


def test_the_weights_are_the_cards(model):
    assert model.load().identity.weights_sha256 == model.card().sha256


def test_the_result_lies_on_the_grid_of_the_input(model, volume):
    before = volume.voxels.copy()
    result = model.load()(volume)
    assert result.shape == volume.voxels.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert np.array_equal(volume.voxels, before)
    assert volume.padding is not None
    assert (result[volume.padding] == -2048).all()


def test_the_same_input_gives_the_same_bits(model, volume):
    assert np.array_equal(model.load()(volume), model.load()(volume))


def test_other_weights_are_refused(model, tmp_path):
    for path in FOLDER.glob(f"{model.weights}.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / model.card().file
    broken.write_bytes(broken.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match="sha256"):
        model.load(folder=tmp_path)


def test_it_denoises_and_keeps_the_level(model, volume):
    """Noise in the middle falls, its mean HU stays."""
    result = model.load()(volume)
    middle = (slice(None), slice(27, 48), slice(20, 41))
    assert result[middle].std() < 0.8 * volume.voxels[middle].std()
    assert abs(result[middle].mean() - volume.voxels[middle].mean()) < 2
