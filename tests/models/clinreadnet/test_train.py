"""Training: it learns to see noise within seconds and resumes to the same bits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.clinreadnet.config import ClinReadNetConfig, DataConfig, LossConfig, NetworkConfig, TrainConfig
from models.clinreadnet.data import Batch
from models.clinreadnet.losses import decode
from models.clinreadnet.network import build
from models.clinreadnet.train import Run, optimiser_of, train, train_on_challenge
from models.contract import ModelError
from models.simulation.geometry import FanBeam, ParallelBeam

CPU = torch.device("cpu")
QUICK = TrainConfig(steps=6, batch=4, crop_px=32, warmup_steps=2, checkpoint_every=3, learning_rate=3e-3)


class Noise:
    """Flat tissue with noise of five sizes: the noisier, the lower the level."""

    def batch(self, step: int, training: TrainConfig) -> Batch:
        rng = np.random.default_rng((1, step))
        grade = rng.integers(0, 5, training.batch)
        noise = 0.1 * 0.5 ** grade[:, None, None, None] * rng.standard_normal((training.batch, 1, 32, 32))
        x = torch.from_numpy((0.74 + noise).clip(0, 1).astype(np.float32))
        return Batch(x, torch.from_numpy(5 * grade))


@pytest.fixture
def config(tiny: NetworkConfig) -> ClinReadNetConfig:
    return ClinReadNetConfig(network=tiny)


def test_it_learns_to_see_noise_in_a_few_dozen_steps(config, tmp_path):
    training = replace(QUICK, steps=60, batch=16, ema_decay=0.9)
    run = Run(config, training, seed=1, device=CPU)
    run.fit(Noise(), tmp_path / "c.pt", lambda *_: None)
    unseen = Noise().batch(9999, replace(training, batch=64))
    with torch.inference_mode():
        scores, _ = decode(run.smoothed(unseen.images(CPU)))
    assert float((scores - unseen.level / 5).abs().mean()) < 0.5  # 1.2 for the best constant
    assert np.corrcoef(scores.numpy(), unseen.level.numpy())[0, 1] > 0.9


def test_resumes_to_the_same_bits(config, tmp_path):
    straight = Run(config, QUICK, seed=1, device=CPU)
    straight.fit(Noise(), tmp_path / "a.pt", lambda *_: None)

    class Stopped(Exception):
        pass

    def stop_at_5(_what: str, done: int, _total: int, _loss: float) -> None:
        if done == 5:
            raise Stopped

    broken = Run(config, QUICK, seed=1, device=CPU)
    with pytest.raises(Stopped):
        broken.fit(Noise(), tmp_path / "b.pt", stop_at_5)
    torch.manual_seed(99)  # nothing may hang on torch's own generator
    resumed = Run(config, QUICK, seed=1, device=CPU)
    resumed.load(tmp_path / "b.pt")
    assert resumed.step == 3
    torch.manual_seed(98)
    resumed.fit(Noise(), tmp_path / "b.pt", lambda *_: None)
    for one, other in ((straight.network, resumed.network), (straight.smoothed, resumed.smoothed)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    assert straight.late_loss == resumed.late_loss


def test_refuses_the_checkpoint_of_another_run(config, tmp_path):
    Run(config, QUICK, seed=1, device=CPU).save(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="another seed"):
        Run(config, QUICK, seed=2, device=CPU).load(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="another loss"):
        Run(replace(config, loss=LossConfig(coarse=0.0)), QUICK, seed=1, device=CPU).load(tmp_path / "c.pt")
    other = replace(config, network=replace(config.network, sobel=False))
    with pytest.raises(ModelError, match="another network"):
        Run(other, QUICK, seed=1, device=CPU).load(tmp_path / "c.pt")


def test_temperatures_and_gains_do_not_decay_and_heads_learn_faster(config):
    network = build(config.network)
    group_of = {id(one): group for group in optimiser_of(network, QUICK).param_groups for one in group["params"]}
    for name, parameter in network.named_parameters():
        group = group_of[id(parameter)]
        spared = name.endswith(("raw_temperature", "share_logits", "position_bias", "gain", "bias", "gate"))
        assert (group["weight_decay"] == 0) is (spared or "norm" in name or name == "backbone.layers.5.weight"), name
        assert group["times"] == (5 if name.split(".")[1] in ("whole", "local", "worth") else 1), name
    frozen = build(replace(config.network, temperatures=(1.0,), learn_temperatures=False))
    held = {id(one) for group in optimiser_of(frozen, QUICK).param_groups for one in group["params"]}
    assert not any(id(one) in held for name, one in frozen.named_parameters() if name.endswith("share_logits"))


def test_trains_from_nothing_to_weights(config, tmp_path):
    data = DataConfig(
        families=("anthropomorphic-abdomen",), test_families=("mird",),
        geometry=ParallelBeam(views=64, channels=96, pitch_mm=5.0),
        test_geometry=FanBeam(views=64, channels=96, pitch_mm=9.0),
        cases=2, test_cases=1, slices_per_case=1, shape_zyx=(3, 96, 96), pixels_mm=(4.5, 4.5), step_mm=8.0, folds=2,
        grid_fractions=(1.0, 0.1), thinning=(1, 4),
    )  # fmt: skip
    seen: list[str] = []
    weights = train(
        replace(config, data=data),
        tmp_path / "run",
        preset="cpu",
        seed=1,
        training=replace(QUICK, steps=5),
        on_progress=lambda what, *_: seen.append(what),
    )
    assert set(seen) == {"samples", "training", "validation"}
    assert json.loads((tmp_path / "run" / "validation.json").read_text())["images"] == 4
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    assert facts["patients"] == 1
    assert facts["held_out"] == []
    assert facts["network"]["temperatures"] == [2.0, 1.0, 0.5]
    build(config.network).load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    other = train(
        replace(config, data=data), tmp_path / "other", preset="cpu", seed=1, training=replace(QUICK, steps=5),
        samples=tmp_path / "run" / "samples",
    )  # fmt: skip
    assert other.read_bytes() == weights.read_bytes()
    assert not (tmp_path / "other" / "samples").exists()


def test_trains_on_the_public_layout(config, tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "set" / "image").mkdir(parents=True)
    scores = {}
    y, x = np.mgrid[-256:256, -256:256]
    for number in range(6):
        inside = np.hypot(y / rng.uniform(100, 200), x / rng.uniform(150, 240)) < 1
        image = np.where(inside, 0.75, 0) + 0.02 * rng.standard_normal((512, 512))
        Image.fromarray(image.clip(0, 1).astype(np.float32)).save(tmp_path / "set" / "image" / f"{number}.tif")
        scores[f"{number}.tif"] = number * 0.6
    (tmp_path / "set" / "train.json").write_text(json.dumps(scores))
    single = replace(config, network=NetworkConfig(width=16, depths=(1,), heads=(1,), temperatures=(1.0,)))
    train_on_challenge(
        single, tmp_path / "set", tmp_path / "run", held_out_fold=0, preset="cpu", seed=1,
        training=replace(QUICK, steps=2, batch=1),
    )  # fmt: skip
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    measured = json.loads((tmp_path / "run" / "validation.json").read_text())
    assert facts["rated_images"] + measured["images"] == 6
    assert measured["images"] >= 1
