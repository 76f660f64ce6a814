"""Training: it learns, it resumes to the same bits, it never sees who is held out."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from models.contract import ModelError
from models.lidnet.config import TRAINING, TrainConfig, training_of
from models.lidnet.pairs import PairStore, make_pairs
from models.lidnet.slices import slice_files, split
from models.lidnet.train import Run, pixel_loss, train
from models.training import learning_rate

QUICK = TrainConfig(steps=40, batch=4, patch_px=64, learning_rate=2e-3, warmup_steps=5, checkpoint_every=20)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs(slices, small, tmp_path_factory):
    kept, _ = split(slice_files(slices), small.held_out)
    return make_pairs(kept, tmp_path_factory.mktemp("pairs"), small.pairs, seed=1)


@pytest.fixture
def store(pairs, small):
    return PairStore(pairs, small.pairs, seed=1)


def test_it_learns_to_denoise(small, pairs, tmp_path):
    """After some steps the error on samples drawn for no step is smaller than with the noise left in."""
    noisy = replace(small.pairs, fractions=(0.01, 0.02), full_dose_share=0.0, clipped_share=0.0)
    store = PairStore(pairs, noisy, seed=1)
    run = Run(small, replace(QUICK, steps=200), seed=1, device=CPU)
    run.fit(store, tmp_path / "c.pt", lambda *_: None)
    before, after = 0.0, 0.0
    for step in range(1000, 1010):
        batch = store.batch(step, QUICK)
        with torch.no_grad():
            after += float(pixel_loss(run.smoothed(batch.low_dose), batch.full_dose, batch.weight))
        before += float(pixel_loss(batch.low_dose, batch.full_dose, batch.weight))
    assert after < 0.95 * before


def test_resumes_to_the_same_bits(small, store, tmp_path):
    straight = Run(small, QUICK, seed=1, device=CPU)
    straight.fit(store, tmp_path / "a.pt", lambda *_: None)

    class Stopped(Exception):
        pass

    def stop_at_30(_what: str, done: int, _total: int, _loss: float) -> None:
        if done == 30:
            raise Stopped

    broken = Run(small, QUICK, seed=1, device=CPU)
    with pytest.raises(Stopped):
        broken.fit(store, tmp_path / "b.pt", stop_at_30)
    resumed = Run(small, QUICK, seed=1, device=CPU)
    resumed.load(tmp_path / "b.pt")
    assert resumed.step == 20
    resumed.fit(store, tmp_path / "b.pt", lambda *_: None)
    for name, tensor in straight.smoothed.state_dict().items():
        assert torch.equal(tensor, resumed.smoothed.state_dict()[name]), name


def test_refuses_the_checkpoint_of_another_seed(small, tmp_path):
    Run(small, QUICK, seed=1, device=CPU).save(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="another seed"):
        Run(small, QUICK, seed=2, device=CPU).load(tmp_path / "c.pt")


def test_trains_from_a_folder_to_weights_without_those_held_out(small, slices, tmp_path):
    seen: list[tuple[str, int, int]] = []
    weights = train(
        small,
        slices,
        tmp_path,
        preset="cpu",
        seed=1,
        steps=2,
        workers=1,
        on_progress=lambda what, done, n, _: seen.append((what, done, n)),
    )
    tensors = load_file(weights)
    assert tensors["body.head.weight"].dtype == torch.float16
    assert tensors["hu_range"].tolist() == [-3000, 3071]
    assert ("training", 2, 2) in seen
    patients = {path.name.split("-")[0] for path in (tmp_path / "pairs").iterdir()}
    assert len(patients) == 3
    assert not patients & set(small.held_out)


def test_on_a_gpu_red_cnn_gets_a_shorter_training_on_smaller_patches():
    unet, redcnn = (training_of("gpu", socket) for socket in ("unet", "red-cnn"))
    assert unet == TRAINING["gpu"]
    assert redcnn.steps < unet.steps
    assert redcnn.patch_px < unet.patch_px
    assert training_of("cpu", "red-cnn") == TRAINING["cpu"]


def test_the_rate_warms_up_and_dies_down():
    rates = [learning_rate(step, TRAINING["cpu"]) for step in range(TRAINING["cpu"].steps)]
    assert rates[0] < rates[50] < max(rates) == pytest.approx(TRAINING["cpu"].learning_rate, rel=1e-3)
    assert rates[-1] == pytest.approx(TRAINING["cpu"].last_learning_rate, rel=0.1)


def test_the_loss_is_blind_where_the_weight_is_zero():
    weight = torch.ones(1, 1, 4, 4)
    weight[..., :2] = 0
    target = torch.zeros(1, 1, 4, 4)
    wrong = target.clone()
    wrong[..., :2] = 1e6
    assert pixel_loss(wrong, target, weight) == 0
    assert math.isclose(float(pixel_loss(target + 0.5, target, weight)), 0.25 / 2)


def test_the_loss_is_squared_within_the_noise_and_absolute_beyond():
    target, noise_hu = torch.zeros(1, 1, 4, 4), 20.0
    weight = torch.full_like(target, noise_hu**-2)
    assert float(pixel_loss(target + 10, target, weight)) == pytest.approx(0.25)
    assert float(pixel_loss(target + 200, target, weight)) == pytest.approx(2 * 10 - 1)
