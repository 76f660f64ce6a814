from __future__ import annotations

import math

import pytest

from node.dicom.write import codes, content


def test_half_a_pixel_is_added_once() -> None:
    line = content.polyline([(3.0, 7.0), (5.5, 7.0)], content.image("1.2", "1.3"))
    assert list(line.GraphicData) == [3.5, 7.5, 6.0, 7.5]


def test_the_outline_of_an_image_lies_inside_it_and_is_closed() -> None:
    points = list(content.outline(40, 37, content.image("1.2", "1.3")).GraphicData)
    assert (min(points), max(points)) == (0.5, 39.5)
    assert points[:2] == points[-2:]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        content.numeric(codes.VOLUME, value, codes.CUBIC_MILLIMETRE)


def test_a_long_code_value_has_a_field_of_its_own() -> None:
    item = codes.item(("12345678901234567", "99PACSNODE", "long"))
    assert item.LongCodeValue == "12345678901234567"
    assert "CodeValue" not in item


def test_a_container_names_its_template() -> None:
    group = content.container(codes.MEASUREMENT_GROUP, [], template="1501")
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert "ContentSequence" not in group
