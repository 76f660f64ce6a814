"""Which regions that nobody measured are lesions: by code where there is one, by name where the code is silent.

A region that is not said to be a lesion is none: organs, outlines of the body, margins round a tumour and what is left
of an organ without it ("Lungs-GTV") are drawn far more often.
source   PS3.16 CID 7150, 7159; AAPM TG-263 (names of structures in radiotherapy)
"""

from __future__ import annotations

import re

from models.contract import Code

NOT_A_LESION = "a region that is not said to be a lesion"

_ABNORMAL = ("49755003", "M-01000")
_LESIONS = frozenset(
    (
        *("52988006", "M-01100"),  # lesion
        *("4147007", "M-03000"),  # mass
        *("27925004", "M-03010"),  # nodule
        *("108369006", "M-8FFFF", "M-80000"),  # neoplasm
        *("372087000", "86049000", "M-80003"),  # neoplasm, primary
        *("14799000", "128462008", "M-80006"),  # neoplasm, secondary
        *("C81175", "C113842"),  # lesion that enhances, or does not
        *("228791009", "R-429E0"),  # gross tumour volume
    )
)
_WITHOUT_AXES = frozenset(
    (
        *("79654002", "M-36300"),  # oedema
        *("6574001", "M-54000"),  # necrosis: a part of a lesion
        *("50960005", "M-37000"),  # haemorrhage
        *("55584005", "M-35300", "75753009", "M-35000", "396339007", "M-35001"),  # embolus, clot, thrombus
        *("409774005", "M-0100C"),  # inflammation
        *("107671003", "M-520F8"),  # sclerosis of vessels
        *("19227008", "M-30400"),  # foreign body
        *("17621005", "G-A460"),  # normal
    )
)
"""Abnormal, and nothing that two axes are measured on."""
_UNSAID = frozenset({"85756007", "T-D0050"})
"""Tissue: what programs write who were told nothing. Other categories say what it is, and that is no lesion."""

_GROSS = re.compile(r"gtv(?![a-z]*sb)(?!.*-\s*[a-z])", re.IGNORECASE)
"""Not the bed that surgery left (GTVsb), nor without something (GTV-Lung)."""
_NAMED = re.compile(r"(l[eéä]si[oó]n|tumou?r|tumeur|neoplasm|nodule|n[oó]dulo|rundherd|metast[aá]\w*)(s|e|en|es)?")
_WORDS = re.compile(r"[A-ZÄÖÜ]?[a-zäöüáéíóú]+|[A-ZÄÖÜ]+(?![a-z])")
_TAKEN_BACK = frozenset(
    (
        *("ctv", "ptv", "itv", "igtv", "ictv", "prv", "margin", "exp", "expanded", "expansion", "ring", "shell"),
        *("minus", "sub", "without", "outside", "ex", "except", "no", "not", "non", "normal", "healthy"),
        *("bed", "cavity", "post", "avoid", "avoidance", "opt", "dose", "halo", "peritumoral", "peritumoural"),
    )
)
_ORGAN_TYPES = ("", "NONE", "ORGAN", "CONTROL")
"""RT ROI Interpreted Types that programs write for anything."""


def is_lesion(category: Code | None, kind: Code | None, name: str) -> bool:
    """Of a segment, by its property category and type and its label."""
    if kind is not None and kind[0] in _LESIONS:
        return True
    if category is not None and category[0] in _ABNORMAL:
        return kind is None or kind[0] not in _WITHOUT_AXES
    return (category is None or category[0] in _UNSAID) and named_as_lesion(name)


def is_gross_tumour(interpreted_type: str, identified_as: Code | None, name: str) -> bool:
    """Of a structure in a structure set: what can be seen of a tumour, without the margins that treatment adds."""
    if interpreted_type.upper() == "GTV":
        return not _takes_back(name) and (not name.upper().startswith("GTV") or bool(_GROSS.match(name)))
    if interpreted_type.upper() not in _ORGAN_TYPES:
        return False
    return (identified_as is not None and identified_as[0] in _LESIONS) or named_as_lesion(name)


def named_as_lesion(name: str) -> bool:
    """Behind a hyphen it may be what is taken away: "Liver-Tumour" is a liver."""
    said = any(_NAMED.fullmatch(word) for word in _words(name.partition("-")[0]))
    return (said or bool(_GROSS.match(name))) and not _takes_back(name)


def _takes_back(name: str) -> bool:
    return bool(_TAKEN_BACK.intersection(_words(name))) or any(sign in name for sign in "+~")


def _words(name: str) -> list[str]:
    """ "LungTumour_2" has two."""
    return [word.lower() for word in _WORDS.findall(name)]
