from __future__ import annotations

from typing import Any

import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from node.dicom.write import display


def _header(**elements: Any) -> Dataset:
    ds = Dataset()
    with disable_value_validation():
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    return ds


def _numbers(element: Any) -> list[float]:
    return [float(value) for value in (element.value if element.VM > 1 else [element.value])]


def _table(*descriptor: int) -> Dataset:
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if min(descriptor, default=0) < 0 else "US", list(descriptor))
    table.add_new("LUTData", "OW", b"\0\1\2\3")
    return table


@pytest.mark.parametrize(
    ("stated", "centres", "widths"),
    [
        ({"WindowCenter": 40, "WindowWidth": 400}, [40], [400]),
        ({"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}, [40, -600], [400, 1500]),
        ({"WindowCenter": [40, 50], "WindowWidth": 400}, [40], [400]),
        ({"WindowCenter": [40, 50, 60], "WindowWidth": [0, 300, -5]}, [50], [300]),
        ({"WindowCenter": 0.4, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"}, [0.4], [0.5]),
    ],
)
def test_windows_that_can_be_used_are_kept_as_stated(stated: Any, centres: Any, widths: Any) -> None:
    item = display.voi(_header(**stated))
    assert item is not None
    assert (_numbers(item["WindowCenter"]), _numbers(item["WindowWidth"])) == (centres, widths)
    assert item.get("VOILUTFunction") == stated.get("VOILUTFunction")


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 40},
        {"WindowWidth": 400},
        {"WindowCenter": 40, "WindowWidth": 0},
        {"WindowCenter": 40, "WindowWidth": -1},
        {"WindowCenter": 40, "WindowWidth": 0.5},
        {"WindowCenter": 40, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "CURVED"},
        {"WindowCenter": 40, "WindowWidth": "NaN"},
        {"VOILUTFunction": "LINEAR", "WindowCenterWidthExplanation": "SOFT"},
    ],
)
def test_what_makes_no_window_is_none(stated: Any) -> None:
    assert display.voi(_header(**stated)) is None


@pytest.mark.parametrize(
    ("explanations", "kept"), [("SOFT", None), (["SOFT", ""], None), (["SOFT", "LUNG"], ["SOFT", "LUNG"])]
)
def test_explanations_are_kept_where_each_window_has_one(explanations: Any, kept: Any) -> None:
    windows = {"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}
    item = display.voi(_header(**windows, WindowCenterWidthExplanation=explanations))
    assert item is not None
    assert item.get("WindowCenterWidthExplanation") == kept


def test_tables_that_are_whole_are_kept() -> None:
    broken = Dataset()
    broken.LUTExplanation = "NO DATA"
    item = display.voi(_header(VOILUTSequence=[broken, _table(2, -100, 16)]))
    assert item is not None
    [table] = item.VOILUTSequence
    assert list(table.LUTDescriptor) == [2, -100, 16]
    assert display.voi(_header(VOILUTSequence=[broken])) is None


@pytest.mark.parametrize(
    ("stated", "rescale"),
    [
        ({"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}, (1, -1024, "HU")),
        ({"RescaleSlope": 2, "RescaleIntercept": 0}, (2, 0, "US")),
        ({"RescaleSlope": 1}, None),
        ({"RescaleSlope": "", "RescaleIntercept": 0}, None),
        ({"RescaleSlope": [1, 2], "RescaleIntercept": 0}, None),
    ],
)
def test_a_rescale_has_both_numbers(stated: Any, rescale: Any) -> None:
    assert display.rescale(_header(**stated)) == rescale
