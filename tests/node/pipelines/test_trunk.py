import pytest

from models.contract import Acquisition
from node.pipelines.trunk import not_of_the_trunk


@pytest.mark.parametrize(
    "part",
    [
        "CHEST", "THORAX", "Thorax", "LUNG", "ABDOMEN", "PELVIS", "TRUNK", "WHOLEBODY", "WHOLE BODY", "LIVER", "KIDNEY",
        "OVARY", "CHESTABDPELVIS", "ABDOMENPELVIS", "NECKCHESTABDPELV", "CHEST_TO_PELVIS", "TH CT CHEST WO C", "TAP",
        "CAP", "C/A/P", "CORONARYARTERY", "Abdomen and Pelvis", "THORACICAORTA", "ABDOMEN W/ SPINE",
    ],
)  # fmt: skip
def test_body_parts_of_the_trunk_pass(part: str) -> None:
    assert not_of_the_trunk(Acquisition(body_part=part, descriptions=("CT HEAD WO",))) == ""


@pytest.mark.parametrize(
    "part",
    [
        "HEAD", "BRAIN", "NECK", "HEADNECK", "CSPINE", "TSPINE", "THORACIC SPINE", "THORACOLUMBAR_SPINE", "SHOULDER",
        "ELBOW", "WRIST", "HIP", "ANKLE", "LEG", "LOWER LIMB", "IAC", "JAW", "SINUSES", "EXTREMITY", "CAROTID",
    ],
)  # fmt: skip
def test_other_body_parts_do_not_and_the_reader_is_told_what_was_read(part: str) -> None:
    reason = not_of_the_trunk(Acquisition(body_part=part, descriptions=("CT CHEST",)))
    assert reason == f'The networks were trained on images of the trunk, and the body part in the header is "{part}".'


@pytest.mark.parametrize(
    ("descriptions", "named"),
    [
        (("CT HEAD WO",), "head"),
        (("5 MM", "1.1 Routine_Brain"), "brain"),
        (("", "", "CT NECK SOFT TISSUE"), "neck"),
        (("T-SPINE", "CHEST ABD"), "spine"),
        (("Schädel nativ",), "schadel"),
        (("FEET FIRST", "Knie links"), "knie"),
        (("NECK", "CT NECK CHEST"), "neck"),
    ],
)
@pytest.mark.parametrize("part", ["", "UNKNOWN"])
def test_without_a_body_part_the_nearest_description_that_names_one_decides(
    part: str, descriptions: tuple[str, ...], named: str
) -> None:
    reason = not_of_the_trunk(Acquisition(body_part=part, descriptions=descriptions))
    assert "states no body part" in reason
    assert reason.endswith(f'names "{named}".')


@pytest.mark.parametrize(
    "descriptions",
    [
        (),
        ("150cc OMNIPAQUE)", "CT ABDOMEN  W/CONTRAST"),
        ("5 MM STANDARD", "5.1 CHEST ROUTINE"),
        ("STANDARD 2.5MM", "3.11 TRAUMA CHEST/ABD/PEL (NON CONTRAST) T-L SP PELVIS", "CT HEAD"),
        ("HELICAL", "5.2 ROUTINE (FEET FIRST)"),
        ("ARMS UP 5MM",),
        ("CT SLICES", "", "PET CT SKULL BASE TO MID-THIGH"),
        ("HEAD OF PANCREAS",),
        ("CHEST", "", "CT HEAD CHEST"),
        ("EARLY ARTERIAL", "SmartScore - Gated 0.5 sec"),
    ],
)
def test_without_a_body_part_a_series_passes_unless_another_region_is_named(descriptions: tuple[str, ...]) -> None:
    assert not_of_the_trunk(Acquisition(descriptions=descriptions)) == ""
