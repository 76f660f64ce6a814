"""Training: each network learns a small task within seconds and resumes to the same bits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from models.contract import ModelError
from models.diffusionxray.config import DiffusionXRayConfig, NetworkConfig, SamplingConfig, ScheduleConfig, TrainConfig
from models.diffusionxray.losses import flow_loss, noise_loss, regression_loss
from models.diffusionxray.network import build
from models.diffusionxray.schedule import cosine
from models.diffusionxray.train import DdpmRun, Pairs, RefinerRun, RegressorRun, digest, train

CPU = torch.device("cpu")
QUICK = TrainConfig(steps=6, batch=4, crop_px=16, warmup_steps=2, checkpoint_every=3, learning_rate=3e-3)


class Discs:
    """Bright discs, and the same blurred by 3 × 3 pixels and noisy."""

    def batch(self, step: int, training: TrainConfig) -> Pairs:
        rng = np.random.default_rng((1, step))
        at = np.arange(training.crop_px)
        y, x, radius = rng.uniform((4, 4, 2), (12, 12, 5), (training.batch, 3)).T[:, :, None, None]
        clean = torch.from_numpy(np.hypot(at[:, None] - y, at - x) < radius).float()[:, None] - 0.5
        blurred = functional.avg_pool2d(functional.pad(clean, (1, 1, 1, 1), mode="replicate"), 3, 1)
        noise = 0.05 * rng.standard_normal(clean.shape).astype(np.float32)
        return Pairs(clean, blurred + torch.from_numpy(noise))


def configured(network: NetworkConfig) -> DiffusionXRayConfig:
    networks = {
        "ddpm": replace(network, inputs=2),
        "regressor": replace(network, time=False, residual=True),
        "refiner": replace(network, time_scale=2000.0),
    }
    return DiffusionXRayConfig(networks=networks, schedule=ScheduleConfig(steps=100))


@pytest.fixture
def config(tiny: NetworkConfig) -> DiffusionXRayConfig:
    return configured(tiny)


LEARNER = configured(NetworkConfig(fold=1, stem=16, width=16, mults=(1,)))
LEARNING = replace(QUICK, steps=60, warmup_steps=10, learning_rate=1e-2, ema_decay=0.9)


def run_of(stage, config, training=QUICK, seed=1, regressor_seed=7):
    if stage == "refiner":
        torch.manual_seed(regressor_seed)
        regressor = build(replace(config.networks["regressor"], residual=False))
        return RefinerRun(config, training, seed=seed, device=CPU, regressor=regressor)
    return {"ddpm": DdpmRun, "regressor": RegressorRun}[stage](config, training, seed=seed, device=CPU)


def fitted(run, tmp_path):
    run.fit(Discs(), tmp_path / "c.pt", lambda *_: None)
    return run.smoothed


UNSEEN = Discs().batch(9999, replace(QUICK, batch=64))


def test_the_regressor_learns_to_restore_discs(tmp_path):
    network = fitted(run_of("regressor", LEARNER, LEARNING), tmp_path)
    with torch.inference_mode():
        error = regression_loss(network, UNSEEN.clean, UNSEEN.degraded)
    assert float(error) < 0.5 * float((UNSEEN.degraded - UNSEEN.clean).abs().mean())


def test_the_ddpm_learns_to_see_noise_and_uses_the_condition(tmp_path):
    network = fitted(run_of("ddpm", LEARNER, LEARNING), tmp_path)
    schedule = cosine(LEARNER.schedule)

    def loss(degraded):
        with torch.inference_mode():
            return float(noise_loss(network, UNSEEN.clean, degraded, schedule, torch.Generator().manual_seed(5)))

    assert loss(UNSEEN.degraded) < 0.5 * 0.7979  # E|ε|: what the answer 0 costs
    assert loss(UNSEEN.degraded.roll(1, 0)) > 1.1 * loss(UNSEEN.degraded)


def test_the_refiner_learns_the_flow(tmp_path):
    regressor = build(LEARNER.networks["regressor"])  # untrained: the identity, so that much is left to do
    run = RefinerRun(LEARNER, LEARNING, seed=1, device=CPU, regressor=regressor)
    network = fitted(run, tmp_path)
    with torch.inference_mode():
        error = flow_loss(network, UNSEEN.clean, UNSEEN.degraded, 0.05, torch.Generator().manual_seed(5))
    assert float(error) < 0.5 * float((UNSEEN.degraded - UNSEEN.clean).square().mean() + 0.05**2)


@pytest.mark.parametrize("stage", ["ddpm", "regressor", "refiner"])
def test_resumes_to_the_same_bits(stage, config, tmp_path):
    straight = run_of(stage, config)
    straight.fit(Discs(), tmp_path / "a.pt", lambda *_: None)

    class Stopped(Exception):
        pass

    def stop_at_5(_what: str, done: int, _total: int, _loss: float) -> None:
        if done == 5:
            raise Stopped

    with pytest.raises(Stopped):
        run_of(stage, config).fit(Discs(), tmp_path / "b.pt", stop_at_5)
    resumed = run_of(stage, config)
    resumed.load(tmp_path / "b.pt")
    assert resumed.step == 3
    torch.manual_seed(98)  # nothing may hang on torch's own generator
    resumed.fit(Discs(), tmp_path / "b.pt", lambda *_: None)
    for one, other in ((straight.network, resumed.network), (straight.smoothed, resumed.smoothed)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    assert straight.late_loss == resumed.late_loss


def test_refuses_the_checkpoint_of_another_run(config, tmp_path):
    saved = tmp_path / "c.pt"
    run_of("regressor", config).save(saved)
    with pytest.raises(ModelError, match="another stage"):
        run_of("ddpm", config).load(saved)
    run_of("ddpm", config).save(saved)
    with pytest.raises(ModelError, match="another schedule"):
        run_of("ddpm", replace(config, schedule=ScheduleConfig(steps=50))).load(saved)
    run_of("refiner", config).save(saved)
    with pytest.raises(ModelError, match="another regressor"):
        run_of("refiner", config, regressor_seed=8).load(saved)
    with pytest.raises(ModelError, match="another start_sd"):
        run_of("refiner", replace(config, sampling=SamplingConfig(flow_noise=0.1))).load(saved)


def test_an_image_paired_with_itself_is_refused(config):
    """The signature of the published log: the clean target in the condition (dossier 7.1)."""
    network = build(config.networks["ddpm"])
    leaking = UNSEEN.degraded.clone()
    leaking[3] = UNSEEN.clean[3]
    with pytest.raises(ModelError, match="paired with itself"):
        noise_loss(network, UNSEEN.clean, leaking, cosine(config.schedule), torch.Generator())


def test_the_noise_loss_of_a_perfect_network_is_zero():
    """Told the clean image as its condition, the noise can be computed from the state."""
    schedule = cosine(ScheduleConfig(steps=100))
    shift = torch.full_like(UNSEEN.clean, 0.25)

    def perfect(x, time):
        alpha, sigma = (
            torch.from_numpy(table)[time.long()].float()[:, None, None, None]
            for table in (schedule.alpha, schedule.sigma)
        )
        return (x[:, :1] - alpha * (x[:, 1:] - shift)) / sigma

    loss = noise_loss(perfect, UNSEEN.clean, UNSEEN.clean + shift, schedule, torch.Generator().manual_seed(1))
    assert float(loss) < 1e-4


def test_the_losses_are_mean_absolute_errors_as_published():
    """E|ε| of the answer 0; a squared error would be 1."""
    schedule = cosine(ScheduleConfig(steps=100))
    silent = noise_loss(lambda x, _time: 0 * x[:, :1], UNSEEN.clean, UNSEEN.degraded, schedule, torch.Generator())
    assert float(silent) == pytest.approx((2 / np.pi) ** 0.5, rel=0.02)
    off = torch.tensor([0.1, 0.5]).repeat(len(UNSEEN.clean) // 2)[:, None, None, None]
    assert float(regression_loss(lambda _: UNSEEN.clean + off, UNSEEN.clean, UNSEEN.degraded)) == pytest.approx(0.3)


def test_times_are_drawn_evenly_over_all_whole_steps():
    schedule, seen = cosine(ScheduleConfig(steps=20)), []

    def watching(x, time):
        seen.extend(time.tolist())
        return x[:, :1]

    draws = torch.Generator().manual_seed(3)
    for _ in range(40):
        noise_loss(watching, UNSEEN.clean, UNSEEN.degraded, schedule, draws)
    counts = np.bincount(np.array(seen, int), minlength=20)
    assert len(counts) == 20
    assert np.abs(counts - 128).max() < 5 * 128**0.5


def test_a_flat_image_is_no_leak():
    """Of collimation the degraded crop is the crop itself: nothing is in it that the state does not say as well."""
    schedule, flat = cosine(ScheduleConfig(steps=100)), torch.full_like(UNSEEN.clean, -1.0)
    loss = noise_loss(lambda x, _time: 0 * x[:, :1], flat, flat.clone(), schedule, torch.Generator().manual_seed(1))
    assert float(loss) == pytest.approx((2 / np.pi) ** 0.5, rel=0.02)


def test_the_flow_loss_of_a_still_network_is_what_is_left_to_move():
    left = float((UNSEEN.clean - UNSEEN.degraded).square().mean())
    for start_sd in (0.0, 0.5):
        draws = torch.Generator().manual_seed(1)
        loss = flow_loss(lambda x, _time: torch.zeros_like(x), UNSEEN.clean, UNSEEN.degraded, start_sd, draws)
        assert float(loss) == pytest.approx(left + start_sd**2, rel=0.04 if start_sd else 1e-6)


def test_trains_from_pairs_to_weights(config, tmp_path):
    regressor = build(config.networks["regressor"])
    weights = train(
        config, "refiner", Discs(), tmp_path, preset="cpu", seed=3, regressor=regressor, training=QUICK
    )  # fmt: skip
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["stage"] == "refiner"
    assert facts["regressor"] == digest(regressor)
    assert facts["network"]["time_scale"] == 2000.0
    build(config.networks["refiner"]).load_state_dict({name: one.float() for name, one in load_file(weights).items()})


def test_a_training_goes_on_with_the_same_pairs_and_rates_alone(config, tmp_path):
    """Else its facts would tell of the last ones, and its weights be of both."""
    told = {"mix": {"physics": 1.0}, "keep_coarse": True}

    def taken_up(training=QUICK, learns_from=told, **how):
        return train(
            config, "regressor", Discs(), tmp_path, preset="cpu", seed=3, training=training, learns_from=learns_from,
            **how,
        )  # fmt: skip

    weights = taken_up()
    before = weights.read_bytes()
    facts = json.loads((tmp_path / "training.json").read_text())
    assert (facts["mix"], facts["keep_coarse"], facts["steps"]) == ({"physics": 1.0}, True, 6)
    with pytest.raises(ModelError, match="another mix"):
        taken_up(learns_from=told | {"mix": {"bicubic": 1.0}})
    with pytest.raises(ModelError, match="another training"):
        taken_up(replace(QUICK, batch=2))
    with pytest.raises(ModelError, match="6 steps behind it"):
        taken_up(replace(QUICK, steps=5))
    assert weights.read_bytes() == before
    taken_up(replace(QUICK, steps=7))
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 7
    taken_up(learns_from=told | {"mix": {"bicubic": 1.0}}, resume=False)


def test_a_regressor_is_for_the_refiner_alone(config, tmp_path):
    regressor = build(config.networks["regressor"])
    for stage, given in (("refiner", None), ("ddpm", regressor)):
        with pytest.raises(ModelError, match="regressor"):
            train(config, stage, Discs(), tmp_path, preset="cpu", seed=3, regressor=given, training=QUICK)


def test_the_digest_names_the_weights(config):
    one, other = (build(config.networks["refiner"]) for _ in range(2))
    assert digest(one) != digest(other)
    other.load_state_dict(one.state_dict())
    assert digest(one) == digest(other)
