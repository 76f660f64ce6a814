from __future__ import annotations

import pytest

from gate import made
from node.dicom.write.tables import anatomic_region, attributes_of, is_unpaired, may_be_empty_of
from node.errors import AnalysisFailed


def test_a_ct_image_has_its_own_attributes_and_not_those_of_a_radiograph() -> None:
    assert {"KVP", "RescaleSlope", "ConvolutionKernel"} <= attributes_of(made.CT)
    assert "ViewPosition" not in attributes_of(made.CT)
    assert "ViewPosition" in attributes_of(made.CR)


def test_what_may_be_empty_needs_no_value_elsewhere() -> None:
    assert {"KVP", "PositionReferenceIndicator", "AcquisitionNumber"} <= may_be_empty_of(made.CT)
    assert "PixelSpacing" not in may_be_empty_of(made.CT)


@pytest.mark.parametrize(("part", "unpaired"), [("CHEST", True), ("KNEE", False), ("", False), ("NOSUCH", False)])
def test_only_what_the_body_has_once_is_unpaired(part: str, unpaired: bool) -> None:
    assert is_unpaired(part) is unpaired


def test_a_body_part_has_its_code() -> None:
    assert anatomic_region("CHEST ") == ("816094009", "SCT", "Chest")
    assert anatomic_region("NOSUCH") is None


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(AnalysisFailed):
        attributes_of("1.2.3")
