from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from models.clinreadnet.config import ARMS, PAPER_LIKE, LossConfig
from node.cli.training_clinreadnet import _arm, _config
from node.errors import ConfigurationError

Run = Callable[..., Result]


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_its_switches_at_every_size(name: str) -> None:
    small, large = _config(_arm(name), "shipped"), _config(_arm(name), "paper")
    assert (large.network.width, large.network.depths) == (PAPER_LIKE.width, PAPER_LIKE.depths)
    for config in (small, large):
        assert config.network.sobel is (name not in ("no-sobel", "plain-swin"))
        assert len(config.network.temperatures) == (1 if name in ("single-temperature", "plain-swin") else 3)
        assert (config.loss.fine == 0) is (name in ("ce", "plain-swin"))
    assert (small.loss == LossConfig()) is (name in ("clinreadnet", "single-temperature", "no-sobel"))


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="one of clinreadnet, rps"):
        _arm("resnet")


def test_what_cannot_be_trained_on_is_said_in_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for option, said in (
        ("--data", "neither prepared slices"),
        ("--samples", "no samples in train"),
        ("--challenge", "is not the public training set"),
    ):
        result = run("train", "clinreadnet", option, tmp_path / "empty", "--out", tmp_path / "out", "--steps", "1")
        assert result.exit_code == 2, option
        assert said in result.stderr, option


def test_one_kind_of_data_at_a_time(run: Run, tmp_path: Path) -> None:
    result = run("train", "clinreadnet", "--data", tmp_path, "--challenge", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "one of --data, --samples and --challenge" in result.stderr
