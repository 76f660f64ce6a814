"""The table of speeds: who is called when, and ratios of what was measured side by side."""

import pytest

from models.evaluation import speed


def test_calls_take_turns_and_ratios_are_to_the_first(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(speed, "perf_counter", lambda: now[0])

    def takes(seconds):
        def call():
            order.append(seconds)
            now[0] += seconds

        return call

    table = speed.interleaved("Speed", {"slow": takes(0.5), "quick": takes(0.125)}, slices=2, rounds=5)
    assert order == [0.5, 0.125] * 6
    slow, quick = table.rows
    assert (slow.condition, slow.values["seconds a slice"].patients) == ("5 rounds of 2 slices", 5)
    assert slow.values["seconds a slice"].mean == pytest.approx(0.25)
    assert (slow.values["ratio to slow"].mean, quick.values["ratio to slow"].mean) == (1, pytest.approx(0.25))
