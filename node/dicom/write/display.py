"""What a header says of showing its values, as a presentation state says it (PS3.3 C.11.8); no windows of no width.

Derived images are shown by it too: a window that no viewer can use is not copied.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from models.contract import FloatArray
from node.dicom.write import headers

_LEAST_WIDTH = {"": 1.0, "LINEAR": 1.0, "LINEAR_EXACT": 0.0, "SIGMOID": 0.0}
"""Width that a window of this function must have, or exceed where it is 0 (PS3.3 C.11.2.1)."""
KEYWORDS = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence")
SOFT_TISSUE_HU = (-160.0, 240.0)
"""Black and white of CT: noise and low contrast show in soft tissue, in a lung window neither does."""
_SHOWN_PERCENT = (0.5, 99.5)


def window(black: float, white: float) -> Any:
    """One linear window as an item of a Softcopy VOI LUT Sequence; at least as wide as a window must be."""
    item = Dataset()
    item.WindowCenter = format_number_as_ds((black + white) / 2)
    item.WindowWidth = format_number_as_ds(max(white - black, _LEAST_WIDTH["LINEAR"]))
    return item


def span(pixels: FloatArray) -> tuple[float, float]:
    """(black, white) between which all but the extreme pixels lie."""
    low, high = (float(value) for value in np.percentile(pixels, _SHOWN_PERCENT))
    return low, max(high, low + 1.0)


def show(ds: Any, item: Any) -> None:
    """The windows and tables of the item as those of an image, and no others."""
    for keyword in KEYWORDS:
        ds.pop(keyword, None)
        if keyword in item:
            ds[keyword] = item[keyword]


def voi(header: Any) -> Any | None:
    """Windows and tables as an item of a Softcopy VOI LUT Sequence; None where there is none that can be used."""
    item = Dataset()
    _add_windows(item, header)
    tables = [table for table in header.get("VOILUTSequence") or [] if _is_whole(table)]
    if tables:
        headers.copy_element(header["VOILUTSequence"], item)
        item.VOILUTSequence = [table for table in item.VOILUTSequence if _is_whole(table)]
    return item if len(item) else None


def one_view(item: Any) -> Any:
    """The first window, else the first table: a presentation state has no others to choose, and DCMTK takes none."""
    view = Dataset()
    if "WindowCenter" not in item:
        view.VOILUTSequence = item.VOILUTSequence[:1]
        return view
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        if keyword in item:
            setattr(view, keyword, _values(item, keyword)[0])
    if "VOILUTFunction" in item:
        view.VOILUTFunction = item.VOILUTFunction
    return view


def _add_windows(item: Any, header: Any) -> None:
    """Centres with their widths, as far as there is one for each; explanations only where each window has one."""
    centres, widths = _values(header, "WindowCenter"), _values(header, "WindowWidth")
    explanations = _values(header, "WindowCenterWidthExplanation")
    function = str(header.get("VOILUTFunction") or "").strip()
    if function not in _LEAST_WIDTH:
        return
    least = _LEAST_WIDTH[function]
    kept = [
        index
        for index, (centre, width) in enumerate(zip(centres, widths, strict=False))
        if _is_number(centre) and _is_number(width) and width >= least and width > 0
    ]
    if not kept:
        return
    item.WindowCenter = [headers.decimal(centres[index]) for index in kept]
    item.WindowWidth = [headers.decimal(widths[index]) for index in kept]
    if len(explanations) == len(centres) and all(explanations):
        item.WindowCenterWidthExplanation = [explanations[index] for index in kept]
    if function:
        item.VOILUTFunction = function


def rescale(header: Any) -> tuple[Any, Any, str] | None:
    """(slope, intercept, type); None where the header has not both numbers."""
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if not _is_number(slope) or not _is_number(intercept):
        return None
    return headers.decimal(slope), headers.decimal(intercept), str(header.get("RescaleType") or "US")


def _values(header: Any, keyword: str) -> list[Any]:
    if keyword not in header or header[keyword].VM == 0:
        return []
    return list(header[keyword].value) if header[keyword].VM > 1 else [header[keyword].value]


def _is_number(value: Any) -> bool:
    """False for an empty value, and for several."""
    return isinstance(value, int | float) and math.isfinite(value)


def _is_whole(table: Any) -> bool:
    return len(table.get("LUTDescriptor") or ()) == 3 and bool(table.get("LUTData"))
