"""Records as tables, for those who have pandas."""

from __future__ import annotations

import importlib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from qatexplorer.errors import InputError

_DTYPES = {int: "int64", float: "float64", bool: "bool"}
_DTYPES_WITH_NONE = {int: "Int64", float: "float64", bool: "boolean"}


def require_pandas() -> Any:
    """The module ``pandas``. Raises InputError if it is not installed."""
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise InputError(
            "pandas is not installed, so there is no DataFrame to make.",
            why=f"{type(error).__name__}: {error}",
            fix="Install it (pip install pandas); nothing else in qatexplorer needs it.",
        ) from error


def table(kind: type, records: Iterable[Any]) -> Any:
    """A ``pandas.DataFrame`` with a row for each of the records, all of the dataclass ``kind``.

    A column for each field, also if there are no records. A field that is a record itself gives a
    column for each of its own, as in ``"metric.value"``. Whole numbers are int64, numbers float64,
    flags bool; where a whole number or a flag may be missing, ``Int64`` and ``boolean``. Tuples
    stay tuples, paths are text. Raises InputError without pandas.
    """
    rows = list(records)
    return table_of_columns(
        (".".join(names), hint, [_cell(row, names) for row in rows])
        for names, hint in _columns(kind)
    )


def table_of_columns(columns: Iterable[tuple[str, Any, list[Any]]]) -> Any:
    """A ``pandas.DataFrame`` of columns: name, type of what is in it, cells.

    Dtypes are as :func:`table` has them. Raises InputError without pandas.
    """
    pandas = require_pandas()
    return pandas.DataFrame(
        {name: pandas.Series(cells, dtype=_dtype(hint)) for name, hint, cells in columns}
    )


def choose(name: str, choices: Mapping[str, tuple[type, Iterable[Any]]]) -> Any:
    """The :func:`table` of the records that ``name`` stands for.

    Raises InputError for a name that is none of them, and without pandas.
    """
    if name not in choices:
        raise InputError(
            f"There is no table {name!r}.",
            fix=f"The tables are: {', '.join(map(repr, choices))}.",
        )
    return table(*choices[name])


def _columns(kind: type, missing: bool = False) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Names that lead to each cell, and its type; ``missing``: the whole record may be None."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        inner = _without_none(hint)
        if isinstance(inner, type) and is_dataclass(inner):
            for names, own in _columns(inner, missing or inner is not hint):
                yield (field.name, *names), own
        else:
            yield (field.name,), hint | None if missing else hint


def _cell(record: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        record = getattr(record, name) if record is not None else None
    return str(record) if isinstance(record, Path) else record


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    left = [part for part in get_args(hint) if part is not type(None)]
    return left[0] if len(left) == 1 else hint


def _dtype(hint: Any) -> str | None:
    """What pandas keeps a field of that type as; None leaves it to pandas, as with text."""
    inner = _without_none(hint)
    if get_origin(inner) is tuple:
        return "object"
    return (_DTYPES if inner is hint else _DTYPES_WITH_NONE).get(inner)
