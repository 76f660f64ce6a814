"""Whether a CT series is of the trunk: the networks saw chests, abdomens and pelves only."""

from __future__ import annotations

import re

from models.contract import Acquisition
from node.dicom.select import SAYS_NOTHING
from node.dicom.view import plain_words

_TRUNK = re.compile(
    r"CHEST|THORA[XK]|THORAC(?!\w*(\W+\w+){0,2}?\W*(SPINE|VERTEBR|OUTLET))|TORA[XC]|\bLUNGS?\b|PULMO|POUMON|BRUSTKORB|"
    r"MEDIASTIN|THYMUS|HEART|HERZ|CARDIA|CORONARY|AORT|VENA ?CAVA|\bSVC\b|ESOPHAG|TRACHEA|BRONCH|\bRIBS?\b|STERNUM|"
    r"ABD|ADDOM|BAUCH|BUIK|(?<!DE)LIVER|HEPAT|LEBER|PORTAL|GALLBLADDER|BILEDUCT|\bBILE\b|BILIARY|SPLEEN|SPLENIC|"
    r"PAN[CK]REA|KIDNEY|NIERE|RENAL|URETER|URINARY|UROGRA|\bKUB\b|STOMACH|GASTRI|DUODEN|JEJUN|ILEUM|INTESTIN|BOWEL|"
    r"COLON|APPENDIX|SIGMOID|RECTUM|PERITON|MESENT|FLANK|PELVI|BECKEN|BEKKEN|BASSIN|BLADDER|PROSTAT|UTERUS|OVAR(Y|IES)|"
    r"CERVIX|PERINEUM|INGUINAL|GROIN|TRUNK|TORSO|RUMPF|(WHOLE|ENTIRE) ?BODY|GANZKORPER|\bWB|\bN?[CT]AP\b|"
    r"\b[CT] ?/ ?A ?/ ?P\b|\b(SKULL|SK|VERTEX|HEAD|EYES?|ORBITS?)\b.{0,16}\b(THIGHS?|FEET|TOES?)\b"
)
"""Regions (PS3.16 Annex L) and what else is written for them. A list that names more than the trunk is of it too."""

_ELSEWHERE = re.compile(
    r"SPINE\b|WIRBEL|\b(HEAD|BRAIN|CEREBR\w+|\w*CRANI\w+|SKULL|FACE|FACIAL|JAW|MAXILL\w+|MANDIB\w+|TMJ|DENTAL|TEETH|ORBITS?|"
    r"EYES?|EARS?|IACS?|MASTOIDS?|PETROUS|TEMPORAL BONES?|SINUS(ES)?|SELLA|PITUITARY|NECK|LARYNX|PHARYNX|CAROTIDS?|"
    r"THYROID|CERVICAL|VERTEBRA\w*|SHOULDERS?|CLAVICLES?|SCAPULA|HUMERUS|ARMS?|ELBOWS?|FOREARMS?|WRISTS?|HANDS?|"
    r"FINGERS?|THUMBS?|HIPS?|FEMUR|THIGHS?|LEGS?|KNEES?|PATELLA|TIBIA|FIBULA|CALF|ANKLES?|FOOT|FEET|TOES?|HEELS?|"
    r"CALCANEUS|EXTREMIT\w+|LIMBS?|KOPF|SCHADEL|GEHIRN|NNH|NASENNEBENHOHLEN|HALS|[HBL]WS|SCHULTER|ELLENBOGEN|HANDGELENK|HUFTE|KNIE|SPRUNGGELENK|"
    r"FUSS|TETE|CERVEAU|COU|GENOU|HANCHE|EPAULE|RACHIS|CABEZA|CEREBRO|CUELLO|RODILLA|CADERA|COLUMNA|TESTA|ENCEFALO|"
    r"COLLO|GINOCCHIO|SPALLA|HOOFD|HERSENEN)\b"
)
_POSITIONING = re.compile(r"\b((HEAD|FEET|FOOT)[ -]?FIRST|KOPF VORAN|ARMS? (UP|DOWN|RAISED|OVER\w*|ABOVE|ALONG\w*))\b")
"""How the patient lay, not what was scanned."""


def not_of_the_trunk(acquisition: Acquisition) -> str:
    """Why the series is taken for one of another region, in words that say what was read; "" where it is not.

    A body part that is stated decides, and only those of the trunk pass. Where none is, the nearest description that
    names any region decides, and a series that names none anywhere passes.
    """
    part = acquisition.body_part.strip()
    if part.upper() not in SAYS_NOTHING:
        if _TRUNK.search(plain_words(part)):
            return ""
        return f'The networks were trained on images of the trunk, and the body part in the header is "{part}".'
    for description in acquisition.descriptions:
        words = _POSITIONING.sub(" ", plain_words(description))
        if _TRUNK.search(words):
            return ""
        if named := _ELSEWHERE.search(words):
            return (
                "The networks were trained on images of the trunk. The header states no body part, and its description "
                f'names "{named[0].lower()}".'
            )
    return ""
