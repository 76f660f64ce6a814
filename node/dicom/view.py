"""Which way a radiograph was taken, by the words that say so: several, in several languages, beside how it was done.

"AP SUPINE", "Thorax a.p. liegend", "PA_ERECT", "RX TORAX PA DE PIE" are frontal views; "LAT ERECT" is none.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_POSTURE = (
    r"SUPINE|PRONE|RECUMBENT|ERECT|UPRIGHT|STANDING|SITTING|SEATED|LYING|SEMI|SEMIERECT|SEMIUPRIGHT|SUP|UP|UPR|STAND|SIT|"
    r"LIEGEND|STEHEND|SITZEND|HALBSITZEND|LIEGEN|STEHEN|SITZEN|IM|COUCHE|DEBOUT|ASSIS|SUPINO|PRONO|BIPEDESTACION|PIE|"
    r"SENTADO|SENTADA|ACOSTADO|PIEDI|SEDUTO|SEDUTA|ORTOSTA\w*|DEITADO|LIGGEND|STAAND|ZITTEND"
)
_PLACE = (
    r"PORTABLE|PORT|MOBILE|MOBIL|MOBIEL|BEDSIDE|BED|BETT|BETTAUFNAHME|ICU|ITU|CCU|NICU|TROLLEY|STRETCHER|WHEELCHAIR|CHAIR|"
    r"TABLE|WALL|GRID|RASTER|PORTATIL|CAMA|LIT|LETTO|LEITO|AU|EN|DE|A|IN|ON|AT|EM|OP"
)
_BREATH = r"INSP|INSPIRATION|INSPIRATORY|EXP|EXPIRATION|EXPIRATORY|EXSP|EXSPIRATION"
_MANNER = re.compile(rf"(({_POSTURE}|{_PLACE}|{_BREATH}|\d+)(\W+|$))+")
"""How and where: says nothing of the direction."""
_GLUED = (
    r"(?=(SUP|SUPINE|ERECT|UPRIGHT|STANDING|SIT|SITTING|SEMI\w*|PORT|PORTABLE|MOBILE|BEDSIDE|"
    r"LIEGEND|STEHEND|SITZEND)?\b)"
)
"""A view position has sixteen characters: "APSUPINE" is written, too."""
_TO = r" ?(→|[-=]?>) ?"
_PA = re.compile(
    rf"\bP[./-]{{0,2}}A{_GLUED}|\bP A\b|\bPOSTERO[ -]?ANTER\w*|\bPOSTERIOR[ -]?(TO[ -])?ANTERIOR\b|"
    rf"\bP{_TO}A\b|\bD\.-?V\b|\bDORSO[ -]?VENTRAL\w*"
)
_AP = re.compile(
    rf"\bA[./-]{{0,2}}P{_GLUED}|\bA P\b|\bANTERO[ -]?POSTER\w*|\bANTERIOR[ -]?(TO[ -])?POSTERIOR\b|"
    rf"\bA{_TO}P\b|\bV\.-?D\b|\bVENTRO[ -]?DORSAL\w*"
)
_FRONTAL = re.compile(r"\b(FRONTALE?|FACE|FRENTE|ПРЯМ\w+)\b|正 *[面位]")
_LATERAL = re.compile(
    rf"\b(CHEST|THORAX|TORAX|TORACE|CXR)?(LL|RL|L[.-]L|LAT[LR]?|LLAT|RLAT){_GLUED}|\b(L{_TO}R|R{_TO}L)\b|"
    r"\b([LR]?LATERAL(?!IT|I[SZ])\w*|LATERAAL|LATERO\w*|SEITLICH\w*|SEIT|SEITL|SEITE|SEITAUFNAHME|ANLIEGEND|"
    r"PROF|PROFIL[EO]?|PERFIL|DWARS\w*|ZIJDELINGS|BOCZN\w+|BOCN\w+|БОКОВ\w+|(?<=LUNGOR |LUNGER |THORAX )SID[AE])\b|"
    r"[側侧] *[面位]"
)
_AND = r" ?([/+&]|\b(AND|UND|ET|Y|E)\b) ?"
_AND_LATERAL = re.compile(rf"\b([AP][./-]?[AP]\.?|FRONTAL|FACE){_AND}L\b")
"""A lone L is a side elsewhere: "AP L"."""
_BOTH = re.compile(rf"\bF{_AND}P\b|正 *[側侧]")
"""Face and profile, by their initials."""
_IDEOGRAM = re.compile(r"([\u2e80-\u9fff\uf900-\ufaff])")
"""Written without spaces between words."""
_UNUSUAL = re.compile(
    r"\b(LLD|RLD|LLO|RLO|LAO|RAO|LPO|RPO|DECUB\w*|OBL\w*|SCHRAG\w*|SCHUIN\w*|LORD\w*|APICAL|AXIAL|"
    r"(X|CROSS)[ -]?TABLE|HORIZONTAL)\b"
)
_ON_THE_BACK = re.compile(r"\bDECUB\w* (SUPINO|DORSAL\w*)\b")
"""Romance languages say so of whoever lies on the back; the English dorsal decubitus is a lateral view."""
_BY_CODE = {
    code: words
    for words, codes in {
        "AP": "399348003 R-10206",
        "PA": "272479007 R-40888 R-10214",
        "FRONTAL": "399033003 R-10202",
        "LL": "399173006 R-10236",
        "RL": "399198007 R-10232",
        "LATERAL": "399067008 R-102CD 399260004 R-10224 399352003 R-10228 30730003 G-A145",
        "OBLIQUE": (
            "399135007 R-10220 399356000 R-40985 399006002 R-10212 399038007 R-10210 399184004 R-10238 399236003 "
            "R-10234 399182000 R-102C1 399160007 R-10204 399312000 R-10208 399059000 R-10216 260427002 R-40783 "
            "260426006 R-40782 399368009 R-10226 399099002 R-10230 399225005 R-10250 399288005 R-10248"
        ),
        "AXIAL": "399061009 R-10241 399004004 R-10246 399132005 R-10252 399325008 R-10254",
        "CRANIO-CAUDAL": "399162004 R-10242",
        "CAUDO-CRANIAL": "399196006 R-10244",
        "TANGENTIAL": "399110001 R-102C2",
        "SKULL": (
            "399242004 R-102C6 399351005 R-102C7 399272005 R-102C5 399316002 R-102C8 399255003 R-10256 399360002 "
            "R-10257"
        ),
        "FOOT": "399071006 R-102C3 399335002 R-102C4",
        "TEETH": "260499007 R-40810",
        "SPECIMEN": "119376003 G-8300",
    }.items()
    for code in codes.split()
}
"""PS3.16 CID 4010 in SNOMED CT, and in SNOMED RT as older equipment writes it."""


@dataclass(frozen=True)
class View:
    """What words say of the direction: nothing, one thing, or things that exclude each other."""

    frontal: str = ""
    """ "PA", "AP", "FRONTAL" where they leave open which, "" where they name no frontal view."""
    lateral: bool = False
    unusual: bool = False
    """Oblique, lordotic, axial, decubitus: no plain view, whatever else is said."""

    @property
    def contradictory(self) -> bool:
        return bool(self.frontal) and self.lateral

    @property
    def plain_frontal(self) -> bool:
        return bool(self.frontal) and not (self.lateral or self.unusual)


def view_in(text: str) -> View:
    """The view that is named in any of the words, in any order."""
    words = _IDEOGRAM.sub(r" \1 ", plain_words(text))
    pa, ap, both = bool(_PA.search(words)), bool(_AP.search(words)), bool(_BOTH.search(words))
    either = pa or both or _FRONTAL.search(words)
    frontal = "FRONTAL" if pa == ap and either else "PA" if pa else "AP" if ap else ""
    plain = _ON_THE_BACK.sub(" ", words) if frontal else words
    lateral = both or bool(_LATERAL.search(words) or _AND_LATERAL.search(words))
    return View(frontal, lateral, bool(_UNUSUAL.search(plain)))


def view_of_code(value: str, meaning: str) -> str:
    """The view that a View Code names, in words that `view_in` knows; a code that is not known speaks by its meaning.

    returns   "" where neither says anything of the view
    """
    words = meaning.upper()
    return _BY_CODE.get(value, words if view_in(words) != View() else "")


def names_no_view(text: str) -> bool:
    """Whether nothing is said at all, or only how and where the patient was ("PORTABLE")."""
    words = plain_words(text).strip()
    return not words or _MANNER.fullmatch(words) is not None


def plain_words(text: str) -> str:
    """In capitals, without accents, with spaces for underscores: as all words here are written."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).upper().replace("_", " ")
