"""Which attributes belong to which object (PS3.3), from the tables that highdicom carries as data."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from pydicom.datadict import tag_for_keyword

from models.contract import Code
from node.errors import AnalysisFailed


@lru_cache(maxsize=8)
def attributes_of(sop_class_uid: str) -> frozenset[str]:
    """Keywords of all top-level attributes of the object definition. Raises AnalysisFailed for an unknown class."""
    return frozenset(row["keyword"] for module in _modules(sop_class_uid) for row in _rows(module["key"]))


@lru_cache(maxsize=8)
def required_of(sop_class_uid: str) -> frozenset[str]:
    """Keywords of type 1 and type 2 attributes of its mandatory modules."""
    modules = [module for module in _modules(sop_class_uid) if module["usage"] == "M"]
    return frozenset(row["keyword"] for module in modules for row in _rows(module["key"]) if row["type"] in ("1", "2"))


@lru_cache(maxsize=8)
def may_be_empty_of(sop_class_uid: str) -> frozenset[str]:
    """Keywords of type 2 attributes of its mandatory modules, unless another module asks for a value."""
    modules = [module for module in _modules(sop_class_uid) if module["usage"] == "M"]
    rows = [row for module in modules for row in _rows(module["key"])]
    with_value = {row["keyword"] for row in rows if row["type"] == "1"}
    return frozenset(row["keyword"] for row in rows if row["type"] == "2") - with_value


@dataclass(frozen=True)
class OptionalModule:
    """A module that an object may have or not, by the keywords of its attributes.

    own                 of no other module of the object
    must_have_value     type 1
    may_be_empty        type 2
    """

    keywords: frozenset[str]
    own: frozenset[str]
    must_have_value: frozenset[str]
    may_be_empty: frozenset[str]


@lru_cache(maxsize=8)
def optional_modules_of(sop_class_uid: str) -> tuple[OptionalModule, ...]:
    """Those with attributes of type 1 or 2; overlays are none, their attributes are of no single tag."""
    modules = _modules(sop_class_uid)
    shared = Counter(keyword for module in modules for keyword in {row["keyword"] for row in _rows(module["key"])})
    found = []
    for module in modules:
        rows = [row for row in _rows(module["key"]) if module["usage"] != "M" and tag_for_keyword(row["keyword"])]
        by_type = {kind: frozenset(row["keyword"] for row in rows if row["type"] == kind) for kind in ("1", "2")}
        if any(by_type.values()):
            keywords = frozenset(row["keyword"] for row in rows)
            own = frozenset(keyword for keyword in keywords if shared[keyword] == 1)
            found.append(OptionalModule(keywords, own, by_type["1"], by_type["2"]))
    return tuple(found)


def _modules(sop_class_uid: str) -> list[dict[str, str]]:
    definition = _table("sop_class_iod_map").get(sop_class_uid)
    if definition is None:
        raise AnalysisFailed(f"no object definition known for SOP class {sop_class_uid}")
    modules: list[dict[str, str]] = _table("iod_module_map")[definition]
    return modules


def _rows(module: str) -> list[dict[str, Any]]:
    return [row for row in _table("module_attribute_map").get(module, []) if not row["path"]]


def is_unpaired(body_part: str) -> bool:
    """Whether the body has one of it (PS3.16 Annex L), so that a laterality would be wrong. False where unknown."""
    row = _table("anatomic_regions").get(body_part.strip())
    return row is not None and not row[3]


def anatomic_region(body_part: str) -> Code | None:
    """The code that Body Part Examined stands for (PS3.16 Annex L); None where unknown."""
    row = _table("anatomic_regions").get(body_part.strip())
    return None if row is None else (row[1], row[0], row[2])


@lru_cache(maxsize=4)
def _table(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((files("highdicom") / "_standard" / f"{name}.json").read_text(encoding="utf8"))
    return table
