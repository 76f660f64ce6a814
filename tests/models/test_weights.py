"""Cards and weights: complete, matching, or refused."""

import json
import tomllib

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.contract import ModelError
from models.evaluation.table import Measured, Table
from models.weights import load_weights, read_card, save_weights, shipped

CARD = """
name = "toy"
version = "1.0"
file = "toy.safetensors"
sha256 = "{sha256}"
licence = "Apache-2.0"
training = "Nothing at all."
made_by = "a test"
limits = ["none"]
"""


def network() -> nn.Module:
    torch.manual_seed(4)
    made = nn.Linear(3, 2)
    made.register_buffer("most", torch.tensor(3071.0))
    return made


@pytest.fixture
def folder(tmp_path):
    sha256 = save_weights(network(), tmp_path / "toy.safetensors")
    (tmp_path / "toy.toml").write_text(CARD.format(sha256=sha256))
    (tmp_path / "toy.json").write_text(Measured(sha256, {"steps": 3}, (Table("None", ()),)).json())
    return tmp_path


def test_loads_what_the_card_names(folder):
    filled = nn.Linear(3, 2)
    filled.register_buffer("most", torch.tensor(0.0))
    load_weights(filled, read_card("toy", folder), folder)
    torch.testing.assert_close(filled.weight, network().weight, atol=1e-3, rtol=1e-3)
    assert filled.most == 3071


def test_stores_parameters_in_half_precision_and_constants_exactly(folder):
    tensors = load_file(folder / "toy.safetensors")
    assert tensors["weight"].dtype == torch.float16
    assert tensors["most"] == 3071


def test_refuses_other_weights_than_the_cards(folder):
    content = bytearray((folder / "toy.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "toy.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="sha256"):
        load_weights(network(), read_card("toy", folder), folder)


def test_refuses_weights_of_another_network(folder):
    with pytest.raises(ModelError, match="do not fit"):
        load_weights(nn.Linear(3, 4), read_card("toy", folder), folder)


def test_refuses_missing_weights_and_missing_cards(folder):
    card = read_card("toy", folder)
    (folder / "toy.safetensors").unlink()
    with pytest.raises(ModelError, match="missing"):
        load_weights(network(), card, folder)
    with pytest.raises(ModelError, match="no card"):
        read_card("other", folder)


@pytest.mark.parametrize("key", sorted(tomllib.loads(CARD)))
def test_refuses_an_incomplete_card(folder, key):
    lines = [line for line in (folder / "toy.toml").read_text().splitlines() if not line.startswith(f"{key} ")]
    (folder / "toy.toml").write_text("\n".join(lines))
    with pytest.raises(ModelError, match=key):
        read_card("toy", folder)


def test_refuses_numbers_of_other_weights_and_cards_without_numbers(folder):
    assert read_card("toy", folder).training_data == {"steps": 3}
    numbers = json.loads((folder / "toy.json").read_text())
    (folder / "toy.json").write_text(json.dumps({**numbers, "weights_sha256": "0" * 64}))
    with pytest.raises(ModelError, match="other weights"):
        read_card("toy", folder)
    (folder / "toy.json").write_text(json.dumps({"weights_sha256": numbers["weights_sha256"]}))
    with pytest.raises(ModelError, match="lacks tables, training"):
        read_card("toy", folder)
    (folder / "toy.json").unlink()
    with pytest.raises(ModelError, match="no measured numbers"):
        read_card("toy", folder)


def test_half_a_shipment_is_none(folder):
    assert shipped("toy", folder)
    (folder / "toy.toml").unlink()
    assert not shipped("toy", folder)


def test_the_identity_is_the_cards(folder):
    card = read_card("toy", folder)
    assert (card.identity.name, card.identity.version, card.identity.weights_sha256) == ("toy", "1.0", card.sha256)
    assert card.identity.training == "Nothing at all."
