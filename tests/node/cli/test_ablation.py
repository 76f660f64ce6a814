"""`train ablation` from the command line: what is asked wrongly is said at once, before anything is made."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.lidnet.collaborate import collaboration_of
from models.weights import FOLDER
from node.cli.ablation import at_doses, what_of


@pytest.fixture
def weights(tmp_path) -> dict[str, Path]:
    made = {}
    for number, name in enumerate(("denoiser", "detector", "judge")):
        made[name] = tmp_path / f"{name}.safetensors"
        save_file({"nothing": torch.full((2,), float(number))}, made[name])
    return made


def options(weights: dict[str, Path], out: Path) -> list[str]:
    named = [part for name, path in weights.items() for part in (f"--{name}", str(path))]
    return [*named, "--out", str(out)]


def test_a_judge_that_took_part_is_refused(run, weights, tmp_path) -> None:
    result = run("train", "ablation", *options({**weights, "judge": weights["detector"]}, tmp_path / "out"))
    assert result.exit_code == 2
    assert "must not have taken part" in result.stderr


def test_an_arm_that_does_not_exist_is_named_with_those_that_do(run, weights, tmp_path) -> None:
    result = run("train", "ablation", *options(weights, tmp_path / "out"), "--arm", "A9")
    assert "no arm A9; there are A1, A2" in result.stderr


def test_weights_of_something_else_are_refused_before_samples_are_made(run, weights, tmp_path) -> None:
    result = run("train", "ablation", *options(weights, tmp_path / "out"))
    assert "not the weights of this" in result.stderr
    assert not (tmp_path / "out").exists()


def test_detectors_are_those_that_train_deeplesion_makes(run, weights, tmp_path) -> None:
    """What ships fits; the judge, which does not, is the one that is refused."""
    shipped = {"denoiser": FOLDER / "lidnet-fast.safetensors", "detector": FOLDER / "deeplesion-fast.safetensors"}
    result = run("train", "ablation", *options({**weights, **shipped}, tmp_path / "out"))
    assert result.exit_code == 2
    assert f"{weights['judge'].name}: not the weights" in "".join(result.stderr.split("\n"))


def test_doses_that_are_judged_are_trained_around() -> None:
    config = what_of(collaboration_of("cpu", "unet"), (), seeds=1, sweep=False)
    lower = at_doses(config, (0.025, 0.05, 0.05))
    assert lower.fractions == (0.05, 0.025)
    assert lower.training.fractions == pytest.approx((0.02, 0.1))
    assert at_doses(config, (0.9,)).training.fractions[1] == 1
    assert at_doses(config, ()) == config


def test_a_shorter_training_has_the_same_rounds() -> None:
    preset = collaboration_of("cpu", "red-cnn")
    shorter = preset.lasting(60)
    assert (shorter.rounds, shorter.denoiser_steps, shorter.detector_steps) == (preset.rounds, 15, 5)
    assert shorter.balance_batches == 6
    assert preset.lasting(preset.steps) == preset


def test_a_sweep_is_of_the_feedbacks_weights_and_on_validation_patients() -> None:
    collaboration = collaboration_of("cpu", "unet")
    plain, sweep, chosen = (
        what_of(collaboration, arms, seeds=2, sweep=swept)
        for arms, swept in (((), False), ((), True), (("A6", "A1"), True))
    )
    assert (plain.judged_on, plain.times, plain.seeds, len(plain.arms)) == ("test", (1.0,), (1, 2), 8)
    assert (sweep.judged_on, sweep.times, sweep.arms) == ("validation", (0.1, 1.0, 10.0), ("A3", "A4", "A6"))
    assert chosen.arms == ("A1", "A6")
