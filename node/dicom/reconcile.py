"""Results follow the PACS: patient and study as a peer has them now, for a copy that says what stood there before.

source  PS3.3 C.12.1.1.9 (Original Attributes), PS3.4 C.6.2 (study root)
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from node.dicom.elements import parse, raw, text
from node.dicom.query import find, finding
from node.dicom.write.charset import choose_character_set
from node.settings import Peer, Settings

ASKED = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Attributes that a peer is asked for, and that its results then have from it."""

BELONGING: Mapping[str, tuple[str, ...]] = {
    "PatientID": (
        *("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID"),
        *("OtherPatientIDs", "OtherPatientIDsSequence"),
    ),
    "IssuerOfPatientID": ("IssuerOfPatientIDQualifiersSequence",),
    "PatientBirthDate": ("PatientBirthTime", "PatientBirthDateInAlternativeCalendar", "PatientAge"),
    "AccessionNumber": ("IssuerOfAccessionNumberSequence", "RequestAttributesSequence"),
    "ReferringPhysicianName": ("ReferringPhysicianIdentificationSequence",),
}
"""What tells more of a value, and is wrong of another one: it goes with it, unless the peer has told it too."""

_NEEDED = ("PatientName", "PatientID")
_OF_PATIENT = frozenset(ASKED[:5])
"""All of them or none: half of one patient and half of another is nobody."""
_STUDY_INSTANCE_UID = 0x0020000D
_BEHIND_ALL = 0x00400276
_REASON = "COERCE"
_LONGEST = {"LO": 64, "SH": 16}
_FORMS = {
    "CS": re.compile("[MFO]"),  # of the sex
    "DA": re.compile(r"(1[89]|2[01])\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
}
_LOST = ("?", "\ufffd")
"""What stands for letters that a character set, or somebody's software, does not have."""
_MOST_GROUPS, _MOST_COMPONENTS, _LONGEST_GROUP = 3, 5, 64


@dataclass(frozen=True)
class Identity:
    """What a peer says of a study.

    values      by keyword; empty ones are left out
    unusable    keywords of what no object may have, what may have lost letters on the way, and what was needed; where
                one of these is the patient's, there is no other value of the patient either
    reason      why there are no values, in words
    """

    values: Mapping[str, str] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Coercion:
    """Values that take the place of an object's own, and what is said of that.

    removed     keywords of what told more of a value that is replaced
    at          of the revision, not of the clock: the same copy is made at each attempt
    source_aet  whom the former values came from
    """

    values: Mapping[str, str]
    removed: tuple[str, ...]
    at: dt.datetime
    aet: str
    source_aet: str

    @property
    def attributes(self) -> tuple[str, ...]:
        """Keywords of all that is not as it was."""
        return (*self.values, *self.removed)


def find_identity(settings: Settings, peer: Peer, study_instance_uid: str) -> Identity:
    """Patient and study as the peer has them (C-FIND, study root, STUDY level).

    raises  NoCommonContext where the peer does not offer it; Transient, Permanent
    """
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.StudyInstanceUID = study_instance_uid
    for keyword in ASKED:
        setattr(keys, keyword, "")
    with finding(settings, peer) as association:
        found = [
            _identity(match)
            for match in find(association, peer, keys)
            if text(match, _STUDY_INSTANCE_UID) == study_instance_uid
        ]
    if not found:
        return Identity(reason=f"{peer.aet} does not know the study")
    if any(one != found[0] for one in found):
        return Identity(reason=f"{peer.aet} has the study several times, and not of one patient and order")
    if not found[0].values:
        return Identity(unusable=found[0].unusable, reason=f"{peer.aet} tells nothing of patient and order")
    return found[0]


def _identity(match: Dataset) -> Identity:
    values = {keyword: _tidy(keyword, text(match, _tag(keyword))) for keyword in ASKED}
    told = {keyword: value for keyword, value in values.items() if value}
    has_set = bool(text(match, 0x00080005))
    unusable = [
        keyword
        for keyword, value in told.items()
        if not _is_usable(keyword, value) or not (has_set or _is_ascii(raw(match, _tag(keyword))))
    ]
    unusable += [keyword for keyword in _NEEDED if keyword not in told]
    left = set(unusable)
    if not left.isdisjoint(_OF_PATIENT):
        left |= _OF_PATIENT
    return Identity({keyword: value for keyword, value in told.items() if keyword not in left}, tuple(unusable))


def differences(path: Path, identity: Identity) -> tuple[dict[str, str], tuple[str, ...]]:
    """(values that a file has otherwise than the peer, keywords of what must go with its own).

    raises   NotUnderstood, OSError
    """
    own = parse(path, stop_at=_BEHIND_ALL)
    values = {
        keyword: value
        for keyword, value in identity.values.items()
        if not _is_same(keyword, text(own, _tag(keyword)), value)
    }
    belonging = {each for keyword in values for each in BELONGING.get(keyword, ())} - identity.values.keys()
    return values, tuple(sorted(keyword for keyword in belonging if keyword in own))


def coerce(dataset: Dataset, coercion: Coercion) -> None:
    """Put the values in place, and what they were into Original Attributes.

    The character set becomes UTF-8 where that of the data set does not hold the new values.
    """
    with disable_value_validation():
        dataset.decode()
        item = Dataset()
        item.ModifiedAttributesSequence = [_former(dataset, coercion)]
        item.AttributeModificationDateTime = coercion.at.strftime("%Y%m%d%H%M%S%z")
        item.ModifyingSystem = coercion.aet
        item.SourceOfPreviousValues = coercion.source_aet
        item.ReasonForTheAttributeModification = _REASON
        dataset.OriginalAttributesSequence = [*(dataset.get("OriginalAttributesSequence") or []), item]
        for keyword in coercion.removed:
            del dataset[keyword]
        for keyword, value in coercion.values.items():
            setattr(dataset, keyword, value)
        choose_character_set(dataset)


def _former(dataset: Dataset, coercion: Coercion) -> Dataset:
    """Empty where there was nothing, or what no object may have."""
    former = Dataset()
    for keyword in coercion.attributes:
        tag = _tag(keyword)
        is_kept = tag in dataset and (keyword in coercion.removed or _conforms(keyword, text(dataset, tag)))
        former.add_new(tag, dictionary_VR(tag), dataset[tag].value if is_kept else None)
    return former


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


def _tidy(keyword: str, value: str) -> str:
    """A name without delimiters that delimit nothing."""
    return "=".join(_groups(value)).rstrip("=") if _is_name(keyword) else value


def _is_name(keyword: str) -> bool:
    return dictionary_VR(keyword) == "PN"


def _groups(name: str) -> list[str]:
    return ["^".join(part.strip() for part in group.split("^")).rstrip("^") for group in name.split("=")]


def _is_usable(keyword: str, value: str) -> bool:
    return _conforms(keyword, value) and not any(sign in value for sign in _LOST)


def _conforms(keyword: str, value: str) -> bool:
    """To its value representation and multiplicity (PS3.5 6.2)."""
    vr = dictionary_VR(keyword)
    if vr == "PN":
        groups = value.split("=")
        return "\\" not in value and len(groups) <= _MOST_GROUPS and all(map(_is_group, groups))
    if vr in _LONGEST:
        return "\\" not in value and len(value) <= _LONGEST[vr]
    return _FORMS[vr].fullmatch(value) is not None


def _is_group(group: str) -> bool:
    return len(group) <= _LONGEST_GROUP and group.count("^") < _MOST_COMPONENTS


def _is_ascii(value: bytes | str | None) -> bool:
    """Without a Specific Character Set nothing else is in order, and nobody knows what it means."""
    return value is None or value.isascii()


def _is_same(keyword: str, own: str, theirs: str) -> bool:
    if _is_name(keyword):
        return all(_is_same_text(mine, group) for mine, group in _pairs(_groups(own), theirs.split("=")) if group)
    if dictionary_VR(keyword) == "TM":
        return own.startswith(theirs) or (bool(own) and _padded(own) == _padded(theirs))
    return _is_same_text(own, theirs)


def _pairs(own: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A peer may keep fewer groups of a name than the file has; those that it returns count."""
    for place, group in enumerate(theirs):
        yield (own[place] if place < len(own) else ""), group


def _is_same_text(own: str, theirs: str) -> bool:
    """Equal, or the same with letters dropped that the peer's character set lacks."""
    if own == theirs:
        return True
    kept, whole = _letters_beyond_ascii(theirs), _letters_beyond_ascii(own)
    return len(kept) < len(whole) and _ascii(own) == _ascii(theirs) and set(kept) <= set(whole)


def _letters_beyond_ascii(value: str) -> list[str]:
    return [sign for sign in value if not sign.isascii()]


def _ascii(value: str) -> str:
    return "".join(sign for sign in value if sign.isascii())


def _padded(time: str) -> str:
    whole, _, fraction = time.partition(".")
    return f"{whole:0<6}.{fraction:0<6}"
