"""What a GPU must not do to float32, and the order of batches."""

import pytest
import torch

from models.device import as_written, through


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic


def test_float32_is_float32_inside_and_as_before_outside() -> None:
    before = flags()
    with as_written():
        assert flags() == (False, True)
    assert flags() == before
    with pytest.raises(ZeroDivisionError), as_written():
        raise ZeroDivisionError
    assert flags() == before


def test_holds_for_every_call_of_what_it_decorates() -> None:
    inside = as_written()(flags)
    assert [inside(), inside()] == [(False, True)] * 2


def test_results_come_in_the_order_of_the_batches_and_one_at_a_time() -> None:
    made: list[int] = []

    def batches():
        for number in range(3):
            made.append(number)
            yield torch.full((2,), float(number))

    results = through(lambda batch: batch + 1, batches(), torch.device("cpu"))
    assert next(results).tolist() == [1, 1]
    assert made == [0]
    assert [result.tolist() for result in results] == [[2, 2], [3, 3]]
