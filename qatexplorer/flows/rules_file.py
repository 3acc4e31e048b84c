"""Qconfig rules in a file: TOML or JSON, read without running anything of it.

TOML is written by the few lines below: a rule is two levels of numbers, words and yes or no, of
which JSON's own spelling is TOML too, so a library for it would be one more to install.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from qatexplorer.errors import QConfigError
from qatexplorer.flows.qconfig_rules import QConfigRule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
TextFormat = Literal["toml", "json"]


def write_rules(path: str | os.PathLike[str], rules: Iterable[QConfigRule]) -> Path:
    """Write ``rules`` to a file whose name ends in ``.toml`` or ``.json``. Raises QConfigError."""
    file = Path(path)
    text = rules_text(rules, form_of(file))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise QConfigError(
            f"{file} cannot be written: {error}", fix="Name a file in a folder that is there."
        ) from error
    return file


def rules_text(rules: Iterable[QConfigRule], form: TextFormat = "toml") -> str:
    """What :func:`write_rules` writes."""
    plain = {"format": FORMAT, "rule": [one.to_json() for one in rules]}
    if form == "json":
        return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    return _toml(plain)


def read_rules(path: str | os.PathLike[str]) -> tuple[QConfigRule, ...]:
    """The rules of a file. Raises QConfigError, which names rule and key, for all that
    :func:`write_rules` would not write."""
    file = Path(path)
    form = form_of(file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QConfigError(
            f"{file} cannot be read: {type(error).__name__}: {error}",
            fix="Name a file of rules that is there and is UTF-8 text.",
        ) from error
    return parse_rules(text, form, file.name)


def parse_rules(text: str, form: TextFormat, name: str) -> tuple[QConfigRule, ...]:
    """The rules of a text; errors call it ``name``. Raises QConfigError as :func:`read_rules`."""
    try:
        whole = json.loads(text) if form == "json" else tomllib.loads(text)
    # Both libraries' own derive from ValueError; what is nested too deep is no file of rules.
    except (ValueError, RecursionError) as error:
        raise QConfigError(
            f"{name} is not {form.upper()}: {error}", fix="Correct the file at that line."
        ) from error
    return _rules(whole, name)


def _rules(whole: Any, name: str) -> tuple[QConfigRule, ...]:
    if not isinstance(whole, Mapping) or set(whole) - {"format", "rule"}:
        other = sorted(set(whole) - {"format", "rule"}) if isinstance(whole, Mapping) else [whole]
        raise QConfigError(
            f"{name} has {other[0]!r}, which is no part of a file of rules.",
            fix="Its keys are format and rule; write each rule below its own [[rule]].",
        )
    if whole.get("format") != FORMAT or isinstance(whole.get("format"), bool):
        raise QConfigError(
            f"{name}: format is {whole.get('format')!r}.", fix=f"Write format = {FORMAT} on top."
        )
    listed = whole.get("rule", [])
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        raise QConfigError(f"{name}: rule is no list of tables.", fix="Write [[rule]] before each.")
    rules: list[QConfigRule] = []
    for number, one in enumerate(listed, 1):
        try:
            rules.append(QConfigRule.from_json(one))
        except QConfigError as error:
            message = f"{name}, rule {number}: {error.message}"
            raise QConfigError(message, why=error.why, fix=error.fix) from error
        if rules[-1].key in {rule.key for rule in rules[:-1]}:
            raise QConfigError(
                f"{name}, rule {number}: there is a rule for {rules[-1].where!r} before it.",
                fix="Keep one of the two rules.",
            )
    return tuple(rules)


def form_of(name: str | os.PathLike[str]) -> TextFormat:
    """Which of both a file holds by its name. Raises QConfigError for another ending."""
    file = Path(name)
    if file.suffix not in (".toml", ".json"):
        raise QConfigError(
            f"{file.name} is neither TOML nor JSON by its name.",
            fix="End the file's name in .toml or .json.",
        )
    return "json" if file.suffix == ".json" else "toml"


def _toml(plain: Mapping[str, Any]) -> str:
    lines = [f"format = {plain['format']}"]
    for rule in plain["rule"]:
        lines += ["", "[[rule]]", *(f"{key} = {_value(value)}" for key, value in rule.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    # JSON leaves one control character as it is, which TOML forbids.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
