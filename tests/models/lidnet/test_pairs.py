"""Training pairs and the batches drawn from them."""

import numpy as np
import pytest

from models.contract import ModelError
from models.lidnet.config import TRAINING, PairConfig
from models.lidnet.pairs import PADDING, PairStore, make_pairs
from models.lidnet.slices import load_slice, slice_files, split

CPU = TRAINING["cpu"]


@pytest.fixture(scope="module")
def pairs(slices, small, tmp_path_factory):
    return make_pairs(slice_files(slices), tmp_path_factory.mktemp("pairs"), small.pairs, seed=1)


def test_patients_stay_whole_when_split(slices, small):
    kept, out = split(slice_files(slices), small.held_out)
    assert (len(kept), len(out)) == (6, 2)
    assert {load_slice(path).patient for path in out} == set(small.held_out)
    assert not {load_slice(path).patient for path in kept} & set(small.held_out)


def test_refuses_to_hold_out_a_stranger(slices):
    with pytest.raises(ModelError, match="hold out"):
        split(slice_files(slices), ("ffffffffff",))


def test_refuses_an_empty_folder(tmp_path):
    with pytest.raises(ModelError, match="no prepared slices"):
        slice_files(tmp_path)


def test_refuses_files_that_are_no_prepared_slices(tmp_path):
    np.savez(tmp_path / "x.npz", hu=np.zeros((4, 4)), padding=np.zeros((4, 4)))
    with pytest.raises(ModelError, match="not a prepared slice"):
        load_slice(tmp_path / "x.npz")


def test_a_pair_holds_the_slice_and_two_noises(pairs, slices):
    planes = np.load(pairs[0])
    image = load_slice(slice_files(slices)[0])
    assert np.array_equal(planes[0] == PADDING, image.padding)
    assert np.array_equal(planes[0][~image.padding], image.hu[~image.padding])
    assert planes[1].std() > 0
    assert planes[2].std() > 0


def test_pairs_already_made_are_kept(pairs, slices, small):
    before = [path.stat().st_mtime_ns for path in pairs]
    again = make_pairs(slice_files(slices), pairs[0].parent, small.pairs, seed=1)
    assert again == pairs
    assert [path.stat().st_mtime_ns for path in again] == before


def test_the_pairs_are_the_same_whoever_makes_them(pairs, slices, small, tmp_path):
    made = make_pairs(slice_files(slices), tmp_path, small.pairs, seed=1, workers=2)
    assert [path.read_bytes() for path in made] == [path.read_bytes() for path in pairs]


def test_patients_with_few_slices_get_several_noises(slices, tmp_path):
    made = make_pairs(slice_files(slices)[:2], tmp_path, PairConfig(views=80, least_realisations=4), seed=1)
    assert len(made) == 4
    assert not np.array_equal(np.load(made[0])[1], np.load(made[1])[1])


def test_a_step_always_gives_the_same_batch(pairs, small):
    first, again = (PairStore(pairs, small.pairs, seed=3).batch(11, CPU) for _ in range(2))
    other = PairStore(pairs, small.pairs, seed=3).batch(12, CPU)
    assert first.low_dose.equal(again.low_dose)
    assert not first.low_dose.equal(other.low_dose)
    assert first.low_dose.shape == (CPU.batch, 1, CPU.patch_px, CPU.patch_px)


def test_some_samples_stay_at_full_dose_and_padding_never_counts(pairs, small):
    batches = [PairStore(pairs, small.pairs, seed=3).batch(step, CPU) for step in range(8)]
    untouched = sum(int((b.low_dose == b.full_dose).all((1, 2, 3)).sum()) for b in batches)
    assert 0 < untouched < 0.4 * 8 * CPU.batch
    assert any((b.weight == 0).any() for b in batches)
    for b in batches:
        assert (b.low_dose[b.weight == 0] == -1000).all()
