"""The diffusion prior as degrader, against Gaussian pictures whose score is known exactly; its training."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import fft

from models.contract import ModelError
from models.diffusionxray.config import NetworkConfig, ScheduleConfig, TrainConfig
from models.diffusionxray.network import build
from models.diffusionxray.prior import (
    PRIOR,
    PriorRun,
    degrade_by_prior,
    drawn_below,
    low_band,
    path_below,
    prior_loss,
    read_prior,
    train_prior,
)
from models.diffusionxray.retention import Nodules, nodule_retention
from models.diffusionxray.samplers import Noise, dpm_solver
from models.diffusionxray.schedule import cosine, even_steps

SCHEDULE = cosine(ScheduleConfig())
MEAN, VARIANCE = 0.2, 0.04
LIKE = torch.zeros(1, 1, 96, 96, dtype=torch.float64)
QUICK = TrainConfig(steps=6, batch=4, crop_px=16, warmup_steps=2, checkpoint_every=3, learning_rate=3e-3)


def levels(time: float) -> tuple[float, float]:
    """α and σ at a time."""
    snr = math.exp(2 * float(SCHEDULE.log_snr_of(np.array(time))))
    return math.sqrt(snr / (1 + snr)), 1 / math.sqrt(1 + snr)


def knows(x: torch.Tensor, time: float) -> torch.Tensor:
    """The ideal network for pictures of independent pixels from N(MEAN, VARIANCE)."""
    alpha, sigma = levels(time)
    return sigma * (x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


def drawn(clean, strength=0.4, evaluations=10, guidance_sigma_px=None, seed=1, noise_in=knows):
    return drawn_below(
        noise_in, clean, Noise(seed), schedule=SCHEDULE, strength=strength, evaluations=evaluations,
        guidance_sigma_px=guidance_sigma_px, limit=None,
    )  # fmt: skip


def test_the_path_begins_at_its_strength_and_ends_in_the_picture():
    path = path_below(SCHEDULE, 0.4, 10)
    assert path.evaluations == 10
    assert path.time[0] == pytest.approx(0.4 * 1999, abs=1e-6)
    assert path.time[-2] == 0
    assert (path.alpha[-1], path.sigma[-1]) == (1, 0)
    np.testing.assert_allclose(np.diff(path.log_snr[:-1], 2), 0, atol=1e-9)
    np.testing.assert_allclose(path.alpha**2 + path.sigma**2, 1, rtol=1e-12)
    assert path.sigma[0] == pytest.approx(levels(0.4 * 1999)[1])


def test_the_whole_strength_is_the_whole_path():
    whole, even = path_below(SCHEDULE, 1.0, 12), even_steps(SCHEDULE, 12, exact_end=False)
    spread = even_steps(SCHEDULE, 12)
    assert whole.time[0] == even.time[0] == spread.time[0] == 1999
    assert whole.log_snr[0] == pytest.approx(spread.log_snr[0])


@pytest.mark.parametrize(("strength", "evaluations"), [(0.0, 10), (1.1, 10), (0.4, 1)])
def test_a_path_that_leads_nowhere_is_refused(strength, evaluations):
    with pytest.raises(ModelError, match="strength"):
        path_below(SCHEDULE, strength, evaluations)


@pytest.mark.parametrize("strength", [0.3, 0.5])
def test_the_variance_is_what_the_exact_flow_makes_of_the_noised_picture(strength):
    """The flow keeps (x_t − α MEAN) / √(α² V + σ²), V = VARIANCE: √(V / (α² V + σ²)) α of c − MEAN is left."""
    alpha, sigma = levels(strength * 1999)
    gain = math.sqrt(VARIANCE / (alpha**2 * VARIANCE + sigma**2))
    clean = LIKE + 0.6
    out = drawn(clean, strength, evaluations=60)
    exact = MEAN + gain * (alpha * (clean - MEAN) + sigma * Noise(1).field(0, clean))
    assert float((out - exact).abs().max()) < 0.01
    assert float(out.var()) == pytest.approx((gain * sigma) ** 2, rel=4 * math.sqrt(2 / out.numel()) + 0.01)
    own = MEAN + math.sqrt(VARIANCE) * Noise(2).field(0, LIKE)
    assert float(drawn(own, strength).var()) == pytest.approx(VARIANCE, rel=4 * math.sqrt(2 / own.numel()) + 0.03)


def test_more_strength_leaves_less_of_the_clean_picture():
    clean = MEAN + math.sqrt(VARIANCE) * Noise(2).field(0, LIKE)
    kept = [float(((drawn(clean, s) - MEAN) * (clean - MEAN)).mean() / VARIANCE) for s in (0.1, 0.3, 0.5, 1.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 0.6
    assert kept[-1] == pytest.approx(0, abs=4 / 96)


def test_the_whole_strength_without_guidance_is_plain_sampling():
    path = path_below(SCHEDULE, 1.0, 20)
    plain = dpm_solver(knows, path, LIKE, Noise(1), limit=None)
    torch.testing.assert_close(drawn(LIKE + 0.3, 1.0, 20), plain, rtol=0, atol=2e-5)  # α_T is 8e-6, not 0


def cosines(picture: torch.Tensor) -> np.ndarray:
    return fft.dctn(picture[0, 0].numpy(), norm="ortho")


def test_the_low_band_of_the_result_is_that_of_the_clean_picture():
    """Per wave the result is g clean + (1 − g) drawn: the mean is exact, and where g > 0.97, 97 % of a change undone.

    Waves are those of the cosine transform (the edge is mirrored), and g is what the Gaussian lets pass of them.
    """
    sigma_px, side = 3.0, 96
    clean = 0.5 * low_band(Noise(5).field(0, LIKE), 1.0) + 0.3
    out, free = drawn(clean, guidance_sigma_px=sigma_px), drawn(clean)
    passed = np.exp(-0.5 * (np.pi * np.arange(side) / side * sigma_px) ** 2)
    passed = np.outer(passed, passed)
    off, off_free = (np.abs(cosines(one) - cosines(clean)) for one in (out, free))
    assert off_free[0, 0] / side > 0.05  # unguided, the mean moves to what the prior expects
    assert off[0, 0] / side < 1e-9
    low = passed > 0.97
    low[0, 0] = False
    assert low.sum() >= 5
    assert off[low].max() < 0.03 * off_free[low].max()
    high = passed < 1e-3
    assert off[high].mean() > 0.5 * off_free[high].mean()


def test_the_low_band_is_the_picture_where_nothing_is_smoothed_and_its_mean_is_kept():
    picture = Noise(3).field(0, LIKE)
    assert torch.equal(low_band(picture, 0.0), picture)
    assert float(low_band(picture, 4.0).mean()) == pytest.approx(float(picture.mean()), abs=1e-12)
    assert float(low_band(picture, 4.0).std()) == pytest.approx(1 / (2 * math.sqrt(math.pi) * 4), rel=0.15)


def test_pictures_of_a_batch_are_smoothed_apart():
    two = torch.cat([torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)])
    torch.testing.assert_close(low_band(two, 5.0), two)


def test_guidance_by_everything_gives_the_clean_picture_back():
    clean = 0.3 * Noise(5).field(0, LIKE)
    torch.testing.assert_close(drawn(clean, guidance_sigma_px=0.0), clean, rtol=0, atol=1e-12)


def test_guidance_keeps_nodules_that_a_free_prior_would_lose():
    nodules = Nodules(diameter_px=12.0, contrast=0.15)
    clean = 0.1 * Noise(5).field(0, LIKE)

    def found(guidance_sigma_px):
        def degrade(pictures, seed):
            return drawn(pictures, 0.5, guidance_sigma_px=guidance_sigma_px, seed=seed)

        return nodule_retention(degrade, clean, seed=3, nodules=nodules)[0]

    free, guided = found(None), found(2.0)
    assert free.share.max() < 0.5
    assert guided.share.min() > 0.8
    assert guided.moved_px.max() < 0.1


def test_ten_evaluations_are_near_the_limit_of_many():
    clean = MEAN + 0.3 * low_band(Noise(5).field(0, LIKE), 1.5)
    limit = drawn(clean, evaluations=200, guidance_sigma_px=4.0)
    far, near = (float((drawn(clean, evaluations=n, guidance_sigma_px=4.0) - limit).std()) for n in (3, 10))
    assert near < 0.1 * math.sqrt(VARIANCE)
    assert near < far / 2


@dataclass(frozen=True)
class One:
    lq: torch.Tensor


class Stripes:
    """Vertical stripes of any phase."""

    def batch(self, step: int, training: TrainConfig) -> One:
        phase = torch.from_numpy(np.random.default_rng((3, step)).uniform(0, 2 * np.pi, (training.batch, 1, 1, 1)))
        at = torch.arange(training.crop_px)
        return One((0.7 * torch.sin(phase + at * np.pi / 4)).float().expand(-1, 1, training.crop_px, -1).contiguous())


@pytest.fixture
def small(tiny: NetworkConfig) -> NetworkConfig:
    return replace(tiny, inputs=1)


def run_of(network, training=QUICK, seed=1, steps=100):
    return PriorRun(network, ScheduleConfig(steps=steps), training, seed=seed)


def test_the_shipped_prior_sees_the_state_alone():
    assert PRIOR.inputs == 1
    assert (PRIOR.fold, PRIOR.widths) == (2, (32, 64, 128))
    network = build(PRIOR)
    assert network(torch.zeros(1, 1, 32, 48), torch.zeros(1)).shape == (1, 1, 32, 48)


def test_the_loss_of_the_ideal_network_for_empty_pictures_is_zero():
    schedule = cosine(ScheduleConfig(steps=100))

    def ideal(x, time):
        return x / torch.from_numpy(schedule.sigma)[time.long()].float()[:, None, None, None]

    empty = torch.zeros(4, 1, 16, 16)
    assert float(prior_loss(ideal, empty, schedule, torch.Generator().manual_seed(1))) < 1e-6
    silent = prior_loss(lambda x, _time: 0 * x, empty, schedule, torch.Generator().manual_seed(1))
    assert float(silent) == pytest.approx(math.sqrt(2 / math.pi), rel=0.06)


def test_the_prior_learns_and_then_draws_what_it_was_shown(tmp_path):
    """From grey, guided by nothing but its mean, it makes stripes: alike in every row, unlike along a row."""
    network = NetworkConfig(inputs=1, fold=1, stem=16, width=16, mults=(1, 2))
    training = replace(QUICK, steps=100, batch=8, warmup_steps=10, learning_rate=5e-3, ema_decay=0.9)
    run = PriorRun(network, ScheduleConfig(), training, seed=1)
    run.fit(Stripes(), tmp_path / "c.pt", lambda *_: None)
    out = degrade_by_prior(
        run.smoothed, torch.zeros(2, 1, 16, 16), strength=0.9, guidance_sigma_px=8.0, evaluations=12, seed=4
    )
    along, across = (float(out.diff(dim=dim).square().mean()) for dim in (-1, -2))
    assert along > 4 * across
    assert float(out.std()) > 0.2


def test_resumes_to_the_same_bits(small, tmp_path):
    straight = run_of(small)
    straight.fit(Stripes(), tmp_path / "a.pt", lambda *_: None)
    half = run_of(small, replace(QUICK, steps=6, checkpoint_every=2))

    class Stopped(Exception):
        pass

    def stop_at_5(_what: str, done: int, _total: int, _loss: float) -> None:
        if done == 5:
            raise Stopped

    with pytest.raises(Stopped):
        half.fit(Stripes(), tmp_path / "b.pt", stop_at_5)
    resumed = run_of(small)
    resumed.load(tmp_path / "b.pt")
    assert resumed.step == 4
    torch.manual_seed(98)
    resumed.fit(Stripes(), tmp_path / "b.pt", lambda *_: None)
    for name, tensor in straight.smoothed.state_dict().items():
        assert torch.equal(tensor, resumed.smoothed.state_dict()[name]), name


def test_refuses_the_checkpoint_of_another_schedule(small, tmp_path):
    run_of(small).save(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="another schedule"):
        run_of(small, steps=50).load(tmp_path / "c.pt")


def test_a_prior_goes_on_at_the_same_rates_alone(small, tmp_path):
    train_prior(Stripes(), tmp_path, training=QUICK, seed=3, network=small)
    with pytest.raises(ModelError, match="another training"):
        train_prior(Stripes(), tmp_path, training=replace(QUICK, learning_rate=1e-3), seed=3, network=small)
    train_prior(Stripes(), tmp_path, training=replace(QUICK, steps=7), seed=3, network=small)


def test_weights_that_are_no_priors_are_refused(small, tmp_path):
    weights = train_prior(Stripes(), tmp_path, training=replace(QUICK, steps=1), seed=3, network=small)
    content = weights.read_bytes()
    for damage in (b"", content[: len(content) // 2]):
        weights.write_bytes(damage)
        with pytest.raises(ModelError, match="not the weights of this network"):
            read_prior(weights)
    facts = tmp_path / "training.json"
    facts.write_text(facts.read_text().replace('"prior"', '"regressor"'))
    with pytest.raises(ModelError, match="a prior is wanted, and these are the weights of a regressor"):
        read_prior(weights)


def test_trains_to_weights_that_can_be_read_and_used(small, tmp_path):
    weights = train_prior(Stripes(), tmp_path, training=QUICK, seed=3, network=small)
    facts = json.loads((tmp_path / "training.json").read_text())
    assert (facts["stage"], facts["schedule"]["steps"], facts["network"]["inputs"]) == ("prior", 2000, 1)
    network = read_prior(weights)
    assert network.config == small
    run = PriorRun(small, ScheduleConfig(), QUICK, seed=3)
    run.load(tmp_path / "checkpoint.pt")
    for name, tensor in run.smoothed.named_parameters():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)
    (tmp_path / "training.json").unlink()
    with pytest.raises(ModelError, match=r"no training\.json"):
        read_prior(weights)


def test_a_picture_of_any_size_is_degraded_the_same_way_by_the_same_seed(small):
    torch.manual_seed(0)
    network = build(small).eval()
    clean = 0.3 * Noise(5).field(0, torch.zeros(2, 1, 19, 26))
    one, same, other = (degrade_by_prior(network, clean, evaluations=4, seed=seed) for seed in (7, 7, 8))
    assert one.shape == clean.shape
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    twins = degrade_by_prior(network, clean[:1].expand(2, -1, -1, -1), evaluations=4, seed=7)
    assert not torch.equal(twins[0], twins[1])


def test_a_network_gone_wild_cannot_leave_the_range_by_much():
    wild = drawn_below(
        lambda x, _time: 50 * torch.sin(40 * x), LIKE + 0.5, Noise(1), schedule=SCHEDULE, strength=0.4, evaluations=5,
        guidance_sigma_px=4.0,
    )  # fmt: skip
    assert float(wild.abs().max()) <= 3  # x̂_0, and the low band of what it changes
    free = drawn_below(
        lambda x, _time: 50 * torch.sin(40 * x), LIKE + 0.5, Noise(1), schedule=SCHEDULE, strength=0.4, evaluations=5,
        guidance_sigma_px=None,
    )  # fmt: skip
    assert float(free.abs().max()) <= 1 + 1e-12
