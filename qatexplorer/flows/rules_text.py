"""Rules of the qconfig as TOML or JSON, and back: plain text, no code is kept and none is run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal

from qatexplorer.errors import QConfigError
from qatexplorer.flows.module_rules import SIDES, QConfigRule, QuantSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TextFormat = Literal["toml", "json"]

_KEYS = ("where", "float", *SIDES)
_TYPES = {field.name: type(field.default) for field in fields(QuantSpec)}
_FORM = '[[rule]] with where = "conv1" and weight = { bits = 4, symmetric = true }'


def rules_text(rules: Sequence[QConfigRule], form: TextFormat = "toml") -> str:
    """The rules as a file that :func:`read_rules` reads."""
    entries = [_entry(rule) for rule in rules]
    if form == "json":
        return json.dumps({"rule": entries}, indent=2, ensure_ascii=False) + "\n"
    blocks = []
    for entry in entries:
        lines = [f"{key} = {_toml(value)}" for key, value in entry.items()]
        blocks.append("\n".join(["[[rule]]", *lines]))
    return "# qconfig rules of qatexplorer; the later one wins\n" + "".join(
        f"\n{block}\n" for block in blocks
    )


def _entry(rule: QConfigRule) -> dict[str, Any]:
    entry: dict[str, Any] = {"where": rule.where}
    if rule.in_float:
        entry["float"] = True
    return entry | {side: asdict(spec) for side, spec in rule.sides}


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inside} }}"
    # Strings, numbers and truth values are written alike, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_rules(text: str, name: str = "the text") -> tuple[QConfigRule, ...]:
    """The rules of a text in TOML or JSON; ``name`` is what errors call it. Raises QConfigError,
    which names the entry, for what cannot be understood."""
    whole = _parsed(text, name)
    entries = whole.get("rule") if isinstance(whole, Mapping) else None
    if not isinstance(entries, list) or not set(whole) <= {"rule"}:
        raise QConfigError(
            f"{name} holds no rules of a qconfig.",
            why="What they stand in is a list 'rule', and nothing else is beside it.",
            fix=f"Write {_FORM}.",
        )
    return tuple(_rule(entry, f"{name}, rule {i}") for i, entry in enumerate(entries, 1))


def _parsed(text: str, name: str) -> Any:
    try:
        if text.lstrip().startswith("{"):
            return json.loads(text)
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise QConfigError(
            f"{name} is neither TOML nor JSON: {error}.",
            fix=f"Write {_FORM}.",
        ) from error


def _rule(entry: Any, name: str) -> QConfigRule:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("where"), str):
        raise QConfigError(f"{name} does not say where.", fix=f"Write {_FORM}.")
    other = [key for key in entry if key not in _KEYS]
    if other or not isinstance(entry.get("float", False), bool):
        raise QConfigError(
            f"{name} has a {(other or ['float'])[0]!r} that is not understood.",
            where=entry["where"],
            fix=f"Of these keys there may be some: {', '.join(_KEYS)}.",
        )
    specs = {side: _spec(entry[side], f"{name}, {side}") for side in SIDES if side in entry}
    return QConfigRule(entry["where"], in_float=entry.get("float", False), **specs)


def _spec(given: Any, name: str) -> QuantSpec:
    if not isinstance(given, Mapping):
        raise QConfigError(f"{name} is no table.", fix=f"Write {_FORM}.")
    for key, value in given.items():
        if key not in _TYPES or type(value) is not _TYPES[key]:
            raise QConfigError(
                f"{name}: {key} = {value!r} is not understood.",
                fix=f"Of these keys there may be some: {', '.join(_TYPES)}; "
                "bits is a number, observer a word, the others are true or false.",
            )
    return QuantSpec(**given)
