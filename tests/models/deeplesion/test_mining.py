import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.contract import ModelError
from models.deeplesion.clustering import Labels, by_size, mutual_information
from models.deeplesion.mined import REPORT, STATE, TABLE, Mined, MiningConfig, Patches, Round, load_mined, save_mined
from models.deeplesion.mining import MIXED, mine, names_of_clusters, shuffled
from models.deeplesion.patches import PatchNet
from models.deeplesion.table import LesionType, Split

FAMILIES = 5
SIDE = 24


def texture(family: int, rng: np.random.Generator) -> np.ndarray:
    """Stripes of two directions, rings, two chequers; level and contrast of the families overlap."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    phase, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25)
    ring = np.hypot(y + rng.uniform(-2, 2), x + rng.uniform(-2, 2))
    along = np.cos(turn) * x + np.sin(turn) * y
    across = np.cos(turn) * y - np.sin(turn) * x
    wave = (
        np.sin(along * 2 * np.pi / 6 + phase),
        np.sin(across * 2 * np.pi / 6 + phase),
        np.sin(ring * 2 * np.pi / 7 + phase),
        np.sign(np.sin(x * 2 * np.pi / 8 + phase) * np.sin(y * 2 * np.pi / 8 + phase + 1)),
        np.sign(np.sin(x * 2 * np.pi / 16 + phase) * np.sin(y * 2 * np.pi / 16 + 2 * phase)),
    )[family]
    level = -60 + 40 * family + rng.uniform(-40, 40)
    return level + rng.uniform(60, 120) * wave + 40 * rng.standard_normal((SIDE, SIDE))


def families(count: int, *, seed: int, split: Split = Split.TRAIN) -> tuple[Patches, Labels]:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(count) % FAMILIES)
    hu = torch.from_numpy(np.stack([texture(family, rng) for family in truth])[:, None].round().astype(np.int16))
    names = tuple(f"{split.name.lower()}{number}" for number in range(count))
    return Patches(names, hu, torch.full((count,), 3.0), (split,) * count), truth


def network(*widths: int) -> PatchNet:
    torch.manual_seed(0)
    return PatchNet(slices=1, windows=((-300.0, 400.0),), widths=widths)


QUICK = MiningConfig(
    clusters=3, first_clusters=6, restarts=2, components=6, narrowing=2, rounds=3, epochs=0.5, batch=16, shift_px=2
)


@pytest.fixture(scope="module")
def mined() -> tuple[Mined, list[Round], list[Labels], Labels]:
    """A whole run on five families, with the labels of each round and the truth."""
    patches, truth = families(600, seed=1)
    config = MiningConfig(
        first_clusters=15, restarts=3, components=16, narrowing=4, rounds=6, epochs=2, batch=32, shift_px=3
    )
    rounds: list[Round] = []
    labels: list[Labels] = []

    def keep(one: Round, found: Labels) -> None:
        rounds.append(one)
        labels.append(found)

    return mine(network(16, 32, 64), patches, config, seed=0, on_round=keep), rounds, labels, truth


def test_rounds_come_nearer_to_the_families_nobody_told(
    mined: tuple[Mined, list[Round], list[Labels], Labels],
) -> None:
    result, rounds, labels, truth = mined
    # Where a run ends hangs on its start (0.59 to 1.00 over the seeds tried), so the bounds are what every one passed.
    agreement = [mutual_information(found, truth) for found in labels]
    assert agreement[-1] > agreement[0] + 0.02
    assert mutual_information(result.labels, truth) > 0.5
    assert result.labels.max() + 1 == FAMILIES
    assert math.isnan(rounds[0].agreement)
    assert rounds[-1].agreement > rounds[1].agreement + 0.1


def test_no_round_has_an_empty_cluster(mined: tuple[Mined, list[Round], list[Labels], Labels]) -> None:
    result, rounds, labels, _ = mined
    for one, found in zip(rounds, labels, strict=True):
        assert len(np.bincount(found)) == one.clusters
        assert np.bincount(found).min() > 0
    assert np.bincount(result.labels).min() > 0


def test_numbers_of_the_clusters_carry_nothing_but_size(
    mined: tuple[Mined, list[Round], list[Labels], Labels],
) -> None:
    result, _, labels, _ = mined
    for found in (*labels, result.labels):
        assert np.array_equal(by_size(found), found)


def test_other_patches_get_the_nearest_centroid_and_change_nothing(
    mined: tuple[Mined, list[Round], list[Labels], Labels],
) -> None:
    result, _, _, _ = mined
    before = {name: value.clone() for name, value in result.extractor.state_dict().items()}
    centroids = result.centroids.clone()
    unseen, truth = families(150, seed=2, split=Split.VALIDATION)
    together = result.assign(unseen)
    assert mutual_information(together, truth) > 0.45
    alone = Patches(unseen.names[:1], unseen.hu[:1], unseen.log_size[:1], unseen.split[:1])
    assert result.assign(alone).tolist() == together[:1].tolist()
    assert torch.equal(result.centroids, centroids)
    assert all(torch.equal(value, before[name]) for name, value in result.extractor.state_dict().items())


def test_training_patches_are_assigned_to_their_own_labels(
    mined: tuple[Mined, list[Round], list[Labels], Labels],
) -> None:
    result, *_ = mined
    patches, _ = families(600, seed=1)
    assert np.mean(result.assign(patches) == result.labels) > 0.99
    assert result.label_of["train3"] == result.labels[3]


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.TEST])
def test_patches_of_other_splits_are_never_clustered(split: Split) -> None:
    patches, _ = families(20, seed=1)
    mixed = replace(patches, split=(*patches.split[:-1], split))
    with pytest.raises(ModelError, match="training split"):
        mine(network(4, 8), mixed, QUICK, seed=0)


def test_a_run_taken_up_again_ends_the_same(tmp_path: Path) -> None:
    patches, _ = families(60, seed=4)
    whole = mine(network(4, 8), patches, QUICK, seed=3)

    def stop(one: Round, _: Labels) -> None:
        if one.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine(network(4, 8), patches, QUICK, seed=3, out=tmp_path, on_round=stop)
    numbers: list[int] = []
    resumed = mine(
        network(4, 8), patches, QUICK, seed=3, out=tmp_path, on_round=lambda one, _: numbers.append(one.number)
    )
    assert numbers == [2, 3]
    assert np.array_equal(resumed.labels, whole.labels)
    assert torch.equal(resumed.centroids, whole.centroids)
    assert [one.loss for one in resumed.rounds[:-1]] == [one.loss for one in whole.rounds[:-1]]


def test_rounds_of_something_else_are_refused(tmp_path: Path) -> None:
    patches, _ = families(60, seed=4)
    mine(network(4, 8), patches, replace(QUICK, rounds=1), seed=3, out=tmp_path)
    turned = replace(patches, hu=patches.hu.flip(-1))
    larger = replace(patches, log_size=patches.log_size + 1)
    begun_elsewhere = network(4, 8)
    torch.nn.init.ones_(begun_elsewhere.stem.weight)
    for extractor, other, seed in (
        (network(4, 8), patches, 4),
        (network(4, 8), families(60, seed=5)[0], 3),
        (network(4, 8), turned, 3),
        (network(4, 8), larger, 3),
        (begun_elsewhere, patches, 3),
    ):
        with pytest.raises(ModelError, match="rounds of other patches"):
            mine(extractor, other, replace(QUICK, rounds=1), seed=seed, out=tmp_path)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    patches, _ = families(60, seed=4)
    mine(network(4, 8), patches, replace(QUICK, rounds=1), seed=3, out=tmp_path)
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        mine(network(4, 8), patches, replace(QUICK, rounds=1), seed=3, out=tmp_path)


def test_all_of_the_extractor_learns_also_where_it_came_frozen() -> None:
    patches, _ = families(60, seed=4)
    extractor = network(4, 8).requires_grad_(False)
    before = {name: value.clone() for name, value in extractor.named_parameters()}
    mine(extractor, patches, replace(QUICK, rounds=1), seed=3)
    assert [name for name, value in extractor.named_parameters() if torch.equal(value, before[name])] == []


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_round_before(tmp_path: Path) -> None:
    patches, _ = families(60, seed=4)
    with pytest.raises(ModelError, match="no number"):
        mine(network(4, 8), patches, replace(QUICK, learning_rate=1e30), seed=3, out=tmp_path)
    assert not (tmp_path / STATE).exists()


@pytest.mark.parametrize(("clusters", "first"), [(1, 6), (7, 6)])
def test_numbers_of_clusters_that_make_no_sense_are_refused(clusters: int, first: int) -> None:
    patches, _ = families(60, seed=4)
    with pytest.raises(ModelError, match=f"{clusters} clusters from {first}"):
        mine(network(4, 8), patches, replace(QUICK, clusters=clusters, first_clusters=first), seed=0)


def test_fewer_clusters_than_wanted_are_said() -> None:
    patches, _ = families(60, seed=4)
    with pytest.raises(ModelError, match="fewer than 3"):
        mine(network(4, 8), patches, replace(QUICK, least_share=0.4), seed=0)


def test_as_many_patches_as_clusters_are_enough() -> None:
    patches, _ = families(6, seed=1)
    done = mine(network(4, 8), patches, replace(QUICK, rounds=2), seed=0)
    assert sorted(set(done.labels.tolist())) == [0, 1, 2]


def test_two_settled_rounds_end_the_loop() -> None:
    patches, _ = families(60, seed=4)
    done = mine(network(4, 8), patches, replace(QUICK, settled=-1.0, rounds=10), seed=3)
    assert [one.number for one in done.rounds] == [0, 1, 2]
    assert math.isnan(done.rounds[-1].loss)
    assert not any(math.isnan(one.loss) for one in done.rounds[:-1])


def test_what_was_mined_can_be_kept_and_read_back(tmp_path: Path) -> None:
    patches, _ = families(60, seed=4)
    first = mine(network(4, 8), patches, replace(QUICK, rounds=1), seed=3)
    save_mined(first, tmp_path)
    again = load_mined(tmp_path, PatchNet(slices=1, windows=((-300.0, 400.0),), widths=(4, 8)))
    assert again.names == patches.names
    assert np.array_equal(again.labels, first.labels)
    assert np.array_equal(again.assign(patches), first.assign(patches))
    assert again.config == first.config
    assert [one.clusters for one in again.rounds] == [one.clusters for one in first.rounds]


def test_a_changed_label_table_is_refused(tmp_path: Path) -> None:
    patches, _ = families(60, seed=4)
    save_mined(mine(network(4, 8), patches, replace(QUICK, rounds=1), seed=3), tmp_path)
    with pytest.raises(ModelError, match="another network"):
        load_mined(tmp_path, network(4, 16))
    table = tmp_path / TABLE
    table.write_text(table.read_text().replace("train0,", "train0x,"))
    with pytest.raises(ModelError, match="not the one that its report"):
        load_mined(tmp_path, network(4, 8))
    (tmp_path / REPORT).unlink()
    with pytest.raises(ModelError, match="no finished mining run"):
        load_mined(tmp_path, network(4, 8))


def test_too_few_patches_and_double_names_are_refused() -> None:
    patches, _ = families(5, seed=1)
    with pytest.raises(ModelError, match="5 patches for 6 clusters"):
        mine(network(4, 8), patches, QUICK, seed=0)
    with pytest.raises(ModelError, match="same name"):
        replace(patches, names=("a", "a", "b", "c", "d"))
    with pytest.raises(ModelError, match="one length"):
        replace(patches, names=("a",))


def test_the_control_has_the_same_sizes_and_no_meaning() -> None:
    labels = np.repeat(np.arange(5), [500, 200, 100, 50, 50])
    control = shuffled(labels, seed=1)
    assert np.array_equal(np.bincount(control), np.bincount(labels))
    assert mutual_information(labels, control) < 0.05


def test_clusters_are_named_by_a_clear_majority_of_what_is_known() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    types = [
        LesionType.LUNG,
        LesionType.LUNG,
        LesionType.LIVER,
        LesionType.KIDNEY,
        LesionType.BONE,
        LesionType.UNLABELLED,
        LesionType.SOFT_TISSUE,
    ]
    assert names_of_clusters(labels, types) == ["lung", MIXED, "soft tissue"]
    assert names_of_clusters(labels, [LesionType.UNLABELLED] * 7) == [MIXED] * 3
