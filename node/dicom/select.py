"""Which images are for which pipeline, each with the rule that kept or dropped it.

A pure function of headers. Being dropped is no error: the reason is for the reader, one sentence in plain words.

Order of the result: series by Series Number (those without one last), then by Series Instance UID; within a series
the eligible images first, then by role. Images of one series that meet different fates (a localiser in front of the
slices, a lateral beside the frontal view) become several choices; `sop_instance_uids` says which images each means.
How many eligible series a study may have processed is for planning to say, not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from node.dicom.header import InstanceHeader

LOW_DOSE_CT = "low_dose_ct"
CHEST_XRAY = "chest_xray"


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
_CT_CLASSES = {
    _CT: "",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced ",
    "1.2.840.10008.5.1.4.1.1.2.2": "converted enhanced ",
}
_RADIOGRAPH_CLASSES = {
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
_DOSE = re.compile(r"\b(DOSE[ _]?(REPORT|INFO|RECORD|SUMMARY)|PATIENT PROTOCOL|EXAM SUMMARY)\b")
_SCREEN = re.compile(r"\bSCREEN ?(SAVE|SHOT|CAPTURE)\b")
_REFORMAT = re.compile(
    r"\b(MPR|CPR|MIP|MINIP|VRT|3D|MPVR|REFORMATTED|RESAMPLED|AVERAGE|MAX_IP|MIN_IP|PROJECTION IMAGE|VOLUME_RENDER\w*|"
    r"PERFUSION|SUBTRACTION|IODINE|VNC|MATERIAL|MONOENERGETIC|MONO_ENERGETIC|BONE_REMOVAL)\b"
)
_CHEST = re.compile(
    r"\b(CHEST|THORAX|THORACIC STRUCTURE|TORAX|CXR|LUNGS?|PULMO\w*|POUMONS?|BRUSTKORB|51185008|T-D3000)\b"
)
_NO_CHEST = re.compile(
    r"SPINE|WIRBEL|\b(HAND|WRIST|FINGERS?|THUMB|ELBOW|ARM|FOREARM|HUMERUS|SHOULDERS?|CLAVICLE|SCAPULA|RIBS?|STERNUM|SKULL|"
    r"HEAD|NECK|FACE|SINUS(ES)?|JAW|TEETH|ABDOMEN|ABD|KUB|PELVIS|HIPS?|FEMUR|LEGS?|KNEES?|PATELLA|TIBIA|ANKLES?|FOOT|"
    r"FEET|TOES?|CALCANEUS|HEEL|EXTREMITY|BREAST|BABYGRAM|WHOLEBODY|WHOLE BODY)\b"
)
_SAYS_NOTHING = {"", "UNKNOWN", "UNSPECIFIED", "OTHER", "NONE", "MISC", "DEFAULT", "BODY", "N/A"}
_FRONTAL = re.compile(r"\b(PA|AP|FRONTAL)\b")
_FRONTAL_VIEWS = {"PA", "AP"}
_LATERAL = re.compile(r"\b(LL|RL|LAT|LATERAL|LLAT|RLAT|LEFT LATERAL|RIGHT LATERAL|SEITLICH|SEITL|PROFIL|PROFILE)\b")
_UNUSUAL_VIEW = re.compile(r"\b(LLD|RLD|LLO|RLO|LAO|RAO|LPO|RPO|DECUB\w*|OBL\w*|LORDOTIC|APICAL)\b")
_COMPANION = re.compile(r"\b(BONE|SOFT ?TISSUE|SUPPRESS\w*|DUAL ?ENERGY|COMPANION|TOMO\w*|ENHANCED)\b")


def choose(series: Mapping[str, Sequence[InstanceHeader]]) -> list[Choice]:
    """One choice per series, or per group of images of a series that meet the same fate."""
    choices: list[Choice] = []
    for uid in sorted(series, key=lambda uid: _series_order(uid, series[uid])):
        groups: dict[Verdict, list[InstanceHeader]] = {}
        for header in series[uid]:
            groups.setdefault(judge(header), []).append(header)
        for verdict in sorted(groups, key=lambda verdict: (verdict[1] is None, verdict[0], verdict[2])):
            ordered = sorted(groups[verdict], key=_instance_order)
            choices.append(Choice(uid, *verdict, tuple(header.sop_instance_uid for header in ordered)))
    return choices


def judge(header: InstanceHeader) -> Verdict:
    """Role, pipeline and reason of one image. Rules in order, the first that speaks decides."""
    if header.own_result:
        return Role.OWN_RESULT, None, "A result of this system; its own results are never processed again."
    for rule in (_by_class, _by_what_it_shows):
        verdict = rule(header)
        if verdict is not None:
            return verdict
    if header.sop_class_uid in _CT_CLASSES:
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
    if uid in _CT_CLASSES and modality != "CT":
        role = Role.SEGMENTATION if modality == "SEG" else Role.OTHER
        return role, None, f"Stored as a CT image, but its modality says {modality}: the header contradicts itself."
    if uid in _RADIOGRAPH_CLASSES and modality not in {"CR", "DX"}:
        return (
            Role.OTHER,
            None,
            f"Stored as a radiograph, but its modality says {modality}: the header contradicts itself.",
        )
    if uid not in _CT_CLASSES and uid not in _RADIOGRAPH_CLASSES:
        return Role.OTHER, None, f"Neither a CT image nor a plain radiograph (modality {modality}); no analysis for it."
    if header.frames == 0:
        return Role.OTHER, None, "The image has no rows or columns, so there is nothing to process."
    return None


def _by_what_it_shows(header: InstanceHeader) -> Verdict | None:
    """Localisers, dose pages, screen saves and reworked images that hide under an image class."""
    kind = " ".join(header.image_type)
    description = header.series_description.upper()
    says_axial = "AXIAL" in header.image_type[2:3]
    if _LOCALISER.search(kind) or (not says_axial and _is_ct(header) and _LOCALISER.search(description)):
        return Role.LOCALISER, None, "A localiser (scout, topogram), not a cross-section."
    if "PROT" in kind.split() or _DOSE.search(kind) or (not says_axial and _DOSE.search(description)):
        return Role.DOSE_REPORT, None, "A dose or protocol page saved as an image."
    if _SCREEN.search(kind):
        return Role.SCREEN_SAVE, None, "A screen save, not a measured image."
    if header.image_type[:2] == ("DERIVED", "SECONDARY"):
        return (
            Role.DERIVED,
            None,
            "A secondary image computed from others (Image Type DERIVED\\SECONDARY), not an original.",
        )
    if _is_ct(header) and _REFORMAT.search(kind):
        return Role.DERIVED, None, "A reformatted, projected or computed image, not the original cross-sections."
    if _is_ct(header) and header.image_type[:1] == ("DERIVED",) and not says_axial:
        return (
            Role.DERIVED,
            None,
            "A derived image that is not said to be axial; only original or axial images are taken.",
        )
    return None


def _ct(header: InstanceHeader) -> Verdict:
    name = f"{_CT_CLASSES[header.sop_class_uid]}CT images"
    if not header.image_type:
        reason = f"Original {name}: the header gives no image type, and nothing says localiser or reformat."
    elif header.image_type[0] == "DERIVED":
        reason = f"Axial {name}, marked derived but primary (recompressed or blended), so still cross-sections in HU."
    else:
        reason = f"Original {name}, {header.image_type[2].lower() if len(header.image_type) > 2 else 'cross-sections'}."
    return Role.CT, LOW_DOSE_CT, reason


def _radiograph(header: InstanceHeader) -> Verdict:
    part = header.body_part.replace("_", " ")
    described = " ".join((header.series_description, header.protocol_name, header.study_description)).upper()
    described = described.replace("_", " ")
    if part not in _SAYS_NOTHING:
        if _NO_CHEST.search(part) or not _CHEST.search(part):
            return Role.RADIOGRAPH, None, f"Body part is {part}; only chest radiographs are processed."
        where = f"body part {part}"
    elif _NO_CHEST.search(described) or not _CHEST.search(described):
        return Role.RADIOGRAPH, None, "The header does not say that this is a chest; a guess would be unsafe."
    else:
        where = "chest by its description, as the body part is not stated"
    return _by_view(header, where)


def _by_view(header: InstanceHeader, where: str) -> Verdict:
    own_words = " ".join((header.series_description, header.protocol_name)).upper().replace("_", " ")
    view = header.view_position
    if _COMPANION.search(own_words) and header.image_type[:1] == ("DERIVED",):
        return Role.DERIVED, None, "A computed companion image (bone or soft tissue), not the radiograph itself."
    if not view and _LATERAL.search(own_words) and _FRONTAL.search(own_words):
        return (
            Role.RADIOGRAPH,
            None,
            "The description names frontal and lateral, and the image does not say which it is.",
        )
    if _LATERAL.search(view) or (not view and _LATERAL.search(own_words)):
        return Role.RADIOGRAPH, None, "A lateral view; only frontal (PA or AP) chest radiographs are processed."
    if view and view not in _FRONTAL_VIEWS:
        return Role.RADIOGRAPH, None, f"View is {view}; only frontal (PA or AP) chest radiographs are processed."
    if _UNUSUAL_VIEW.search(own_words):
        return (
            Role.RADIOGRAPH,
            None,
            "An oblique, decubitus or lordotic view; only plain frontal radiographs are processed.",
        )
    if view:
        return Role.RADIOGRAPH, CHEST_XRAY, f"Frontal chest radiograph ({where}, view {view})."
    return Role.RADIOGRAPH, CHEST_XRAY, f"Chest radiograph ({where}); the view is not stated and is taken as frontal."


def _is_ct(header: InstanceHeader) -> bool:
    return header.sop_class_uid in _CT_CLASSES


def _all_text(header: InstanceHeader) -> str:
    return " ".join((*header.image_type, header.series_description, header.protocol_name)).upper()


def _series_order(uid: str, headers: Sequence[InstanceHeader]) -> tuple[float, str]:
    given = [header.series_number for header in headers if header.series_number is not None]
    return (min(given) if given else float("inf")), uid


def _instance_order(header: InstanceHeader) -> tuple[float, str]:
    number = header.instance_number
    return (float("inf") if number is None else number), header.sop_instance_uid
