"""Which images are for which pipeline, each with the rule that kept or dropped it.

A pure function of headers. Being dropped is no error: the reason is for the reader, one sentence in plain words.

Order of the result: series by Series Number (those without one last), then by Series Instance UID; within a series
the eligible images first, then by role. Images of one series that meet different fates (a localiser in front of the
slices, a lateral beside the frontal view) become several choices; `sop_instance_uids` says which images each means.
Frontal radiographs of one series are one choice, whatever says of each that it is frontal.
A radiograph for processing whose exposure has an image for presentation in the study is left aside: one exposure gives
one result.
How many eligible series a study may have processed is for planning to say, not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from node.dicom.exposure import is_raw, is_shown, same_exposure
from node.dicom.header import InstanceHeader
from node.dicom.view import names_no_view, plain_words, view_in

LOW_DOSE_CT = "low_dose_ct"
CHEST_XRAY = "chest_xray"
MOST_FRONTAL = 4
"""Of one series: a repeat, inspiration and expiration. More are a course of days, or no plain radiographs."""


class Role(StrEnum):
    CT = "ct"
    RADIOGRAPH = "radiograph"
    LOCALISER = "localiser"
    DOSE_REPORT = "dose report"
    SCREEN_SAVE = "screen save"
    DERIVED = "derived"
    OWN_RESULT = "own result"
    REPORT = "report"
    SEGMENTATION = "segmentation"
    OTHER = "other"


@dataclass(frozen=True)
class Choice:
    """What some images of one series are, and where they go: `eligible_for` names a pipeline, or is None."""

    series_instance_uid: str
    role: Role
    eligible_for: str | None
    reason: str
    sop_instance_uids: tuple[str, ...] = ()


Verdict = tuple[Role, str | None, str]

_CT = "1.2.840.10008.5.1.4.1.1.2"
CT_CLASSES = {
    _CT: "",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced ",
    "1.2.840.10008.5.1.4.1.1.2.2": "converted enhanced ",
}
RADIOGRAPH_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray, for processing
}
_SEGMENTATION_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.481.3",
}
_DOSE_CLASSES = {"1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.68", "1.2.840.10008.5.1.4.1.1.88.76"}
_SCREEN_CLASSES = "1.2.840.10008.5.1.4.1.1.7"
_SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
_DOCUMENT_CLASSES = "1.2.840.10008.5.1.4.1.1.104."

_LOCALISER = re.compile(r"\b(LOCALI[SZ]ER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM|PILOT)\b")
_DOSE = re.compile(r"\b(DOSE ?(REPORT|INFO|RECORD|SUMMARY)|PATIENT PROTOCOL|EXAM SUMMARY)\b")
_SCREEN = re.compile(r"\bSCREEN ?(SAVE|SHOT|CAPTURE)\b")
_REFORMAT = re.compile(
    r"\b(MPR|CPR|MIP|MINIP|VRT|(?<!AIDR )3D|MPVR|REFORMATTED|RESAMPLED|AVERAGE|MAX IP|MIN IP|PROJECTION IMAGE|"
    r"VOLUME RENDER\w*|PERFUSION|SUBTRACTION|IODINE|VNC|VIRTUAL NON ?CONTRAST|MATERIAL|MAT (SPECIFIC|REMOVED|"
    r"FRACTIONAL|MODIFIED|VALUE BASED)|VMI|MONO( ?ENERGETIC|CHROMATIC)?|ELECTRON DENSITY|EFF ATOMIC NUM|BONE REMOVAL)\b"
)
"""In Image Type."""
_CALLED = (
    r"((AX|COR|SAG|\d+)?(MIPS?|MINIPS?|MPRS?)|MPVR|VRT|MAX ?IP|MIN ?IP|AVE ?IP|AVERAGE (CT|IP|INTENSITY)|REFORMAT\w*|"
    r"VOLUME RENDER\w*|IOD(INE)? ?(MAP|OVERLAY|DENSITY|IMAGES?|WATER)|VNC|VIRTUAL NON ?CONTRAST|VMI|MONO ?ENERGETIC\w*|"
    r"MONO ?\+|[4-9]\d ?KEV|SUBTRACT(ION|ED)|BONE REMOV(AL|ED)|ELECTRON DENSITY)(?!\w)"
)
_CALLED_REFORMAT = re.compile(rf"\b{_CALLED}")
"""In a series description: fewer words, since "3D", "IODINE" or "PERFUSION" are said of what was scanned for, too."""
_CONE_BEAM = re.compile(r"\b(CBCT|CONE[ -]?BEAM|DYNA ?CT|XPER ?CT)\b")
_CONE_BEAM_SCANNER = re.compile(r"\b(ON[ -]?BOARD IMAG\w*|OBI|XVI|CBCT)\b")
"""A flat panel on a C-arm or a linear accelerator."""
_MEANT_FOR = re.compile(
    r"\b(FOR|WITH|WO?|W/O|MIT|FUR|POUR|PARA|PER)\b[ /.]*"
    rf"((AX|AXIAL|COR|CORONAL|SAG|SAGITTAL|THICK|THIN|LUNG|3D)\W+)*({_CALLED}\W*)+"
)
"""What an axial series is the source of ("THINS FOR CORONAL MPR"), or has beside it ("CHEST W MIP")."""
_CHEST = re.compile(
    r"\b(CHEST|THORAX|THORACIC STRUCTURE|TORAX|TORACE|CXR|LUNGS?|PULMO\w*|POUMONS?|BRUSTKORB|51185008|T-D3000)\b"
)
_NO_CHEST = re.compile(
    r"SPINE|WIRBEL|\b(HAND|WRIST|FINGERS?|THUMB|ELBOW|ARM|FOREARM|HUMERUS|SHOULDERS?|CLAVICLE|SCAPULA|RIBS?|STERNUM|SKULL|"
    r"HEAD|NECK|FACE|SINUS(ES)?|JAW|TEETH|ABDOMEN|ABD|KUB|PELVIS|HIPS?|FEMUR|LEGS?|KNEES?|PATELLA|TIBIA|ANKLES?|FOOT|"
    r"FEET|TOES?|CALCANEUS|HEEL|EXTREMITY|BREAST|BABYGRAM|WHOLEBODY|WHOLE BODY|"
    r"SCHA(E)?DEL|HALS|SCHULTER|RIPPEN|BAUCH|BECKEN|HU(E)?FTE|KNIE|FUSS|OBERARM|UNTERARM|OBERSCHENKEL|UNTERSCHENKEL|"
    r"ELLENBOGEN|[HBL]WS|CRANE|RACHIS|COTES|EPAULE|COUDE|POIGNET|BASSIN|HANCHE|GENOU|CHEVILLE|CRANEO?|CRANIO|COLUMNA|"
    r"COLUNA|COLONNA|COSTILLAS?|COSTELAS?|COSTALE?|COSTE|HOMBRO|OMBRO|SPALLA|ADDOME|PELVE|BACINO|CADERA|QUADRIL|ANCA|"
    r"RODILLA|JOELHO|GINOCCHIO|SCHEDEL|WERVEL\w*|SCHOUDER|RIBBEN|BUIK|BEKKEN|HEUP|ENKEL)\b"
)
_FACE_ON = re.compile(r"\b(THORAX|POUMONS?|PULMON\w*)\W+((DE|DEBOUT|COUCHE|ASSIS)\W+)*FACE\b")
"""French for a frontal view, not for a part of the head."""
SAYS_NOTHING = {"", "UNKNOWN", "UNSPECIFIED", "OTHER", "NONE", "MISC", "DEFAULT", "BODY", "N/A"}
"""Written where no body part is stated."""
_TWO_VIEWS = re.compile(
    r"\b([2-9]|TWO|THREE|BOTH|MULTIPLE|ZWEI|DEUX|DOS|DUAS|DUE|TWEE)[ -]?(OR MORE |PLUS |\+ ?)?"
    r"(V|VWS?|VIEWS?|E|EBENEN|VUES|INCIDENCES|INCIDENCIAS|PRO[JYI]\w*|RICHTINGEN)\b"
)
_ONLY_FRONTAL = "only frontal (PA or AP) chest radiographs are processed."
_UNUSUAL = "An oblique, decubitus, axial or lordotic view; only plain frontal radiographs are processed."
_COMPANION = re.compile(r"\b(BONE|SOFT ?TISSUE|SUPPRESS\w*|DUAL ?ENERGY|COMPANION|TOMO\w*|ENHANCED)\b")


def choose(series: Mapping[str, Sequence[InstanceHeader]]) -> list[Choice]:
    """One choice per series, or per group of images of a series that meet the same fate."""
    judged = {uid: [(header, judge(header)) for header in headers] for uid, headers in series.items()}
    every = [each for of_series in judged.values() for each in of_series]
    shown = [header for header, verdict in every if verdict[1] == CHEST_XRAY and is_shown(header)]
    choices: list[Choice] = []
    for uid in sorted(series, key=lambda uid: _series_order(uid, series[uid])):
        groups: dict[Verdict, list[InstanceHeader]] = {}
        for header, verdict in judged[uid]:
            groups.setdefault(_left_aside(header, verdict, shown) or verdict, []).append(header)
        _put_together(groups)
        _frontal_together(groups)
        for verdict in sorted(groups, key=lambda verdict: (verdict[1] is None, verdict[0], verdict[2])):
            ordered = sorted(groups[verdict], key=_instance_order)
            choices.append(Choice(uid, *verdict, tuple(header.sop_instance_uid for header in ordered)))
    return choices


def _put_together(groups: dict[Verdict, list[InstanceHeader]]) -> None:
    """Slices of one series are read as one, whatever words headers use of them: a part would pass for the whole."""
    several = sorted(verdict for verdict in groups if verdict[:2] == (Role.CT, LOW_DOSE_CT))
    if len(several) > 1:
        together = [header for verdict in several for header in groups.pop(verdict)]
        groups[Role.CT, LOW_DOSE_CT, " ".join(reason for _, _, reason in several)] = together


def _frontal_together(groups: dict[Verdict, list[InstanceHeader]]) -> None:
    """Several frontal radiographs of one series, such as a repeat, are one choice, and each is processed by itself."""
    several = sorted(verdict for verdict in groups if verdict[1] == CHEST_XRAY)
    together = [header for verdict in several for header in groups[verdict]]
    if len(together) < 2:
        return
    for verdict in several:
        del groups[verdict]
    if len(together) > MOST_FRONTAL:
        reason = f"The series holds {len(together)} frontal chest radiographs; at most {MOST_FRONTAL} are processed."
        groups[Role.RADIOGRAPH, None, reason] = together
    else:
        reasons = " ".join(reason for _, _, reason in several)
        groups[Role.RADIOGRAPH, CHEST_XRAY, f"{len(together)} images, each by itself. {reasons}"] = together


def _left_aside(header: InstanceHeader, verdict: Verdict, shown: Sequence[InstanceHeader]) -> Verdict | None:
    """Instead of the verdict on an image for processing; None where no image for presentation of its exposure is there.

    shown       the radiographs for presentation that may be processed
    """
    if verdict[1] != CHEST_XRAY or not is_raw(header):
        return None
    for other in sorted(
        shown, key=lambda each: (_series_order(each.series_instance_uid, [each]), _instance_order(each))
    ):
        if how := same_exposure(header, other):
            reason = (
                f"For processing; the image for presentation of the same exposure is in {_series_of(other, header)}"
            )
            return Role.RADIOGRAPH, None, f"{reason} ({how}), and one exposure gives one result."
    return None


def _series_of(other: InstanceHeader, header: InstanceHeader) -> str:
    if other.series_instance_uid == header.series_instance_uid:
        return "this series, too"
    return "another series" if other.series_number is None else f"series {other.series_number}"


def judge(header: InstanceHeader) -> Verdict:
    """Role, pipeline and reason of one image. Rules in order, the first that speaks decides."""
    if header.own_result:
        return Role.OWN_RESULT, None, "A result of this system; its own results are never processed again."
    for rule in (_by_class, _by_what_it_shows):
        verdict = rule(header)
        if verdict is not None:
            return verdict
    if header.sop_class_uid in CT_CLASSES:
        return _ct(header)
    return _radiograph(header)


def _by_class(header: InstanceHeader) -> Verdict | None:
    """All that is neither CT nor radiograph by its SOP class, and what its modality contradicts."""
    uid, modality = header.sop_class_uid, header.modality or "none"
    if uid in _SEGMENTATION_CLASSES:
        return Role.SEGMENTATION, None, "A segmentation or contour set, not an image of the patient."
    if uid in _DOSE_CLASSES:
        return Role.DOSE_REPORT, None, "A radiation dose report, not an image."
    if uid.startswith((_SR_CLASSES, _DOCUMENT_CLASSES)):
        return Role.REPORT, None, "A report or document, not an image."
    if uid == _SCREEN_CLASSES or uid.startswith(_SCREEN_CLASSES + "."):
        if _DOSE.search(_all_text(header)):
            return Role.DOSE_REPORT, None, "A dose page saved as a picture."
        return Role.SCREEN_SAVE, None, "A secondary capture (screen save or scanned picture) without measured values."
    if uid in CT_CLASSES and modality != "CT":
        role = Role.SEGMENTATION if modality == "SEG" else Role.OTHER
        return role, None, f"Stored as a CT image, but its modality says {modality}: the header contradicts itself."
    if uid in RADIOGRAPH_CLASSES and modality not in {"CR", "DX"}:
        return (
            Role.OTHER,
            None,
            f"Stored as a radiograph, but its modality says {modality}: the header contradicts itself.",
        )
    if uid not in CT_CLASSES and uid not in RADIOGRAPH_CLASSES:
        return Role.OTHER, None, f"Neither a CT image nor a plain radiograph (modality {modality}); no analysis for it."
    if header.frames == 0:
        return Role.OTHER, None, "The image has no rows or columns, so there is nothing to process."
    return None


def _by_what_it_shows(header: InstanceHeader) -> Verdict | None:
    """Localisers, dose pages, screen saves and reworked images that hide under an image class."""
    kind = " ".join(header.image_type).replace("_", " ")
    description = plain_words(header.series_description)
    says_axial = "AXIAL" in header.image_type[2:3]
    if _LOCALISER.search(kind) or (not says_axial and _is_ct(header) and _LOCALISER.search(description)):
        return Role.LOCALISER, None, "A localiser (scout, topogram), not a cross-section."
    if "PROT" in kind.split() or _DOSE.search(kind) or (not says_axial and _DOSE.search(description)):
        return Role.DOSE_REPORT, None, "A dose or protocol page saved as an image."
    if _SCREEN.search(kind):
        return Role.SCREEN_SAVE, None, "A screen save, not a measured image."
    if _is_ct(header) and _is_cone_beam(header):
        return (
            Role.CT,
            None,
            "A cone-beam CT: its values are no calibrated Hounsfield units, which the networks were trained on.",
        )
    reason = reworked(header.image_type) if _is_ct(header) else _secondary(header.image_type)
    if reason:
        return Role.DERIVED, None, reason
    if _is_ct(header) and (called := _CALLED_REFORMAT.search(_MEANT_FOR.sub(" ", description))):
        return (
            Role.DERIVED,
            None,
            f'The series description says "{called[0]}": a reformatted, projected or computed image, not the original '
            "cross-sections.",
        )
    return None


def reworked(image_type: Sequence[str]) -> str:
    """Why a CT image or frame of this type is no original cross-section, for the reader; "" where it may be one.

    image_type      Image Type, or Frame Type of a multi-frame image, in capitals
    """
    if reason := _secondary(image_type):
        return reason
    if _REFORMAT.search(" ".join(image_type).replace("_", " ")):
        return "A reformatted, projected or computed image, not the original cross-sections."
    if "DERIVED" in image_type[:1] and "AXIAL" not in image_type[2:3]:
        return "A derived image that is not said to be axial; only original or axial images are taken."
    return ""


def _secondary(image_type: Sequence[str]) -> str:
    if tuple(image_type[:2]) == ("DERIVED", "SECONDARY"):
        return "A secondary image computed from others (Image Type DERIVED\\SECONDARY), not an original."
    return ""


def _ct(header: InstanceHeader) -> Verdict:
    name = f"{CT_CLASSES[header.sop_class_uid]}CT images"
    if not header.image_type:
        reason = f"Original {name}: the header gives no image type, and nothing says localiser or reformat."
    elif header.image_type[0] == "DERIVED":
        reason = f"Axial {name}, marked derived but primary (recompressed or blended), so still cross-sections in HU."
    else:
        reason = f"Original {name}, {header.image_type[2].lower() if len(header.image_type) > 2 else 'cross-sections'}."
    return Role.CT, LOW_DOSE_CT, reason


def _radiograph(header: InstanceHeader) -> Verdict:
    part = header.body_part.replace("_", " ")
    described = plain_words(" ".join((header.series_description, header.protocol_name, header.study_description)))
    if part not in SAYS_NOTHING:
        if _NO_CHEST.search(part) or not _CHEST.search(part):
            return Role.RADIOGRAPH, None, f"Body part is {part}; only chest radiographs are processed."
        where = f"body part {part}"
    elif _NO_CHEST.search(_FACE_ON.sub(r"\1", described)) or not _CHEST.search(described):
        return Role.RADIOGRAPH, None, "The header does not say that this is a chest; a guess would be unsafe."
    else:
        where = "chest by its description, as the body part is not stated"
    return _by_view(header, where)


def _by_view(header: InstanceHeader, where: str) -> Verdict:
    own_words = plain_words(f"{header.series_description} {header.protocol_name}")
    if _COMPANION.search(own_words) and header.image_type[:1] == ("DERIVED",):
        return Role.DERIVED, None, "A computed companion image (bone or soft tissue), not the radiograph itself."
    if reason := _no_plain_frontal(header, own_words):
        return Role.RADIOGRAPH, None, reason
    if view_in(header.view_position).frontal:
        return Role.RADIOGRAPH, CHEST_XRAY, f"Frontal chest radiograph ({where}, view {header.view_position})."
    if _side(header) == "FRONTAL":
        return Role.RADIOGRAPH, CHEST_XRAY, f"Frontal chest radiograph ({where}, by the patient orientation)."
    if view_in(own_words).frontal:
        return Role.RADIOGRAPH, CHEST_XRAY, f"Frontal chest radiograph ({where}, frontal by its description)."
    return Role.RADIOGRAPH, CHEST_XRAY, f"Chest radiograph ({where}); the view is not stated and is taken as frontal."


def _no_plain_frontal(header: InstanceHeader, own_words: str) -> str:
    """Why an image is not taken as a plain frontal one; "" where it is. The image's own view position speaks first."""
    stated, coded, described = view_in(header.view_position), view_in(header.view_code), view_in(own_words)
    if stated.contradictory:
        return f'The view position "{header.view_position}" names a frontal and a lateral view; {_ONLY_FRONTAL}'
    if header.view_code and stated.plain_frontal != coded.plain_frontal:
        return f"The view position says {header.view_position}, the view code says {header.view_code}; {_ONLY_FRONTAL}"
    if stated.lateral:
        return f"A lateral view; {_ONLY_FRONTAL}"
    if stated.unusual:
        return _UNUSUAL
    if not stated.frontal and not names_no_view(header.view_position):
        return f"View is {header.view_position}; {_ONLY_FRONTAL}"
    if stated.frontal and described.lateral and not described.frontal:
        return f"The view position says {header.view_position}, the description names a lateral view; {_ONLY_FRONTAL}"
    if not stated.frontal and (reason := _not_frontal(header, own_words)):
        return reason
    return _UNUSUAL if described.unusual else ""


def _not_frontal(header: InstanceHeader, own_words: str) -> str:
    """Why an image whose view is not stated is not taken as frontal; "" where it is.

    Patient Orientation counts as a statement, but many devices write the frontal one by default: it does not outweigh
    words that name a lateral alone. The words of the study are asked last, as they are those of all its images.
    """
    side, described = _side(header), view_in(own_words)
    if side == "LATERAL":
        return f"The patient orientation ({header.patient_orientation[0]}) is that of a lateral view; {_ONLY_FRONTAL}"
    if described.lateral and not described.frontal:
        return f"A lateral view; {_ONLY_FRONTAL}"
    if side == "FRONTAL":
        return ""
    if described.lateral or (not described.frontal and _TWO_VIEWS.search(own_words)):
        return "The description names a lateral or several views, and the image does not say which it is."
    study = plain_words(header.study_description)
    if not described.frontal and (view_in(study).lateral or _TWO_VIEWS.search(study)):
        return "The study description names a lateral or several views, and the image does not say which it is."
    return ""


def _side(header: InstanceHeader) -> str:
    """The view by Patient Orientation: rows of a frontal run left or right, those of a lateral to the front or back."""
    rows = "".join(header.patient_orientation[:1])[:1]
    return {"A": "LATERAL", "P": "LATERAL", "L": "FRONTAL", "R": "FRONTAL"}.get(rows, "")


def _is_cone_beam(header: InstanceHeader) -> bool:
    scanner = plain_words(header.manufacturer_model_name)
    return bool(_CONE_BEAM.search(_all_text(header)) or _CONE_BEAM_SCANNER.search(scanner))


def _is_ct(header: InstanceHeader) -> bool:
    return header.sop_class_uid in CT_CLASSES


def _all_text(header: InstanceHeader) -> str:
    return plain_words(" ".join((*header.image_type, header.series_description, header.protocol_name)))


def _series_order(uid: str, headers: Sequence[InstanceHeader]) -> tuple[float, str]:
    given = [header.series_number for header in headers if header.series_number is not None]
    return (min(given) if given else float("inf")), uid


def _instance_order(header: InstanceHeader) -> tuple[float, str]:
    number = header.instance_number
    return (float("inf") if number is None else number), header.sop_instance_uid
