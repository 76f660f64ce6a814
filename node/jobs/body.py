"""Findings as JSON and back, arrays left out: they live in result objects, the report needs only the scalars."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from models import contract
from models.contract import Findings, SourceRef

_NO_ARRAY = np.zeros(0, dtype=np.float32)


def to_body(findings: Findings) -> dict[str, Any]:
    """Plain JSON types. Arrays are dropped."""
    body = _plain(findings)
    if not isinstance(body, dict):
        raise TypeError("findings are a dataclass")
    return body


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(field) for name, field in fields.items() if not isinstance(field, np.ndarray)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def from_body(body: dict[str, Any]) -> Findings:
    """The findings again; arrays are empty."""
    findings: Findings = _typed(Findings, body)
    return findings


def _typed(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind, vars(contract))
        given = {}
        for field in dataclasses.fields(kind):
            if field.name in value:
                given[field.name] = _typed(hints[field.name], value[field.name])
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                given[field.name] = _NO_ARRAY
        return kind(**given)
    if get_origin(kind) in (Union, UnionType):
        options = [option for option in get_args(kind) if option is not type(None)]
        return None if value is None else _typed(options[0], value)
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(_typed(kinds[0], item) for item in value)
        return tuple(_typed(one, item) for one, item in zip(kinds, value, strict=True))
    return value


def sources_to_body(sources: tuple[SourceRef, ...]) -> list[list[Any]]:
    return [[source.instance_uid, source.frame] for source in sources]


def sources_from_body(body: list[list[Any]]) -> tuple[SourceRef, ...]:
    return tuple(SourceRef(uid, frame) for uid, frame in body)
