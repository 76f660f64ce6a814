"""Rounds, rates and differences of the models' bench, by a clock that is told the time."""

import math

import numpy as np
import pytest
import torch

from bench import bench_models, turns
from bench.bench_models import Sizes, run_all
from bench.turns import Bench, Call, Card, Machine, apart, gflop_of, rounded, table_of, take_turns
from models.device import as_written

MACHINE = Machine(torch.device("cpu"), "a machine", {"bf16": 2.0}, {})


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(turns, "perf_counter", lambda: now[0])
    return now


def takes(clock, seconds, order=None):
    def call():
        if order is not None:
            order.append(seconds)
        clock[0] += seconds
        return clock[0]

    return call


def test_calls_take_turns_and_only_the_cold_ones_miss_the_first(clock):
    order = []
    calls = {"slow": Call(takes(clock, 4.0, order), 2), "cold": Call(takes(clock, 1.0, order), 1, warm=False)}
    timed = take_turns(calls, Card(cuda=False), rounds=2, until=math.inf, say=lambda text: None)
    assert order == [4, 4, 1, 4, 1]
    assert timed["slow"].seconds == [2, 2]
    assert timed["cold"].seconds == [1, 1]
    assert (timed["slow"].first, timed["slow"].last) == (4, 13)


def test_no_round_begins_too_late_but_one_always_does(clock):
    calls = {"one": Call(takes(clock, 4.0), 1)}
    timed = take_turns(calls, Card(cuda=False), rounds=9, until=10.0, say=lambda text: None)
    assert len(timed["one"].seconds) == 2
    late = take_turns(calls, Card(cuda=False), rounds=9, until=0.0, say=lambda text: None)
    assert len(late["one"].seconds) == 1


def test_rates_are_held_against_the_peak_of_their_precision(clock):
    calls = {
        "path": Call(takes(clock, 4.0), 2, gflop=500.0, peak="bf16"),
        "peer": Call(takes(clock, 1.0), 1),
    }
    bench = Bench("A model", "slice", calls, np.asarray, lambda: None, ("a note",))
    timed = take_turns(calls, Card(cuda=False), rounds=3, until=math.inf, say=lambda text: None)
    path, peer = table_of(bench, timed, MACHINE, ()).rows
    assert path.values["ms per slice"].mean == pytest.approx(2000)
    assert path.values["slices a second"].mean == pytest.approx(0.5)
    assert path.values["TFLOP/s"].mean == pytest.approx(0.25)
    assert path.values["share of the peak"].mean == pytest.approx(0.125)
    assert peer.values["ratio to path"].mean == pytest.approx(0.5)
    assert math.isnan(peer.values["share of the peak"].mean)


def test_what_one_result_lacks_counts_as_nothing():
    assert apart(np.array([0.9, 0.5]), np.array([0.9])) == pytest.approx((0.5, 0.25))
    assert apart(np.zeros(0), np.zeros(0)) == (0, 0)


def test_a_product_is_two_operations_a_multiplication():
    a, b = torch.ones(10, 20), torch.ones(20, 30)
    assert gflop_of(lambda: a @ b) == pytest.approx(2 * 10 * 20 * 30 / 1e9)


def test_rounding_can_be_asked_for_and_ends():
    with as_written(), rounded():
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_model_that_fails_does_not_keep_the_next_from_its_turn(monkeypatch, tmp_path):
    def fails(device, sizes):
        raise ValueError("not today")

    def works(device, sizes):
        return Bench("A model", "slice", {"path": Call(lambda: np.ones(2), 1)}, np.asarray, lambda: None, ())

    monkeypatch.setattr(bench_models, "BENCHES", {"one": fails, "other": works})
    monkeypatch.setattr(bench_models, "SHARES", {"one": 0.5, "other": 1.0})
    said: list[str] = []
    tables = run_all(torch.device("cpu"), Sizes(matmul=8, rounds=1), seconds=9.0, out=tmp_path, say=said.append)
    assert [table.title for table in tables] == ["A model"]
    assert any("not today" in text for text in said)
    assert "A model" in (tmp_path / "speeds.md").read_text()
    assert "The same bits each time: yes" in (tmp_path / "speeds.json").read_text()
