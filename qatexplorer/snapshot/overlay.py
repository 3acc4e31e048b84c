"""Numbers to colour a model by: a mapping from paths to numbers, and what the numbers mean."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal

from qatexplorer.errors import OverlayError
from qatexplorer.shown import Shown, at_most, columns, first
from qatexplorer.snapshot import model_explorer
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.tables import table_of_columns

Groups = Literal["sum", "highest", "lowest"]
"""What a module without a number of its own shows of the numbers inside it."""

_PATHS = "Take paths from session.snapshot.by_path or .site_by_path, or ids of its graph.nodes."
_SHOWN = 12
_UNKNOWN = 8


@dataclass(frozen=True, repr=False)
class Overlay(Shown):
    """One number for each of some modules, fake quants or graph nodes of a model.

    Attributes:
        values: by module path, path of a fake quant, or id of a graph node. What is missing is not
            known, which is not 0. With ``categories`` a number is the index of one.
        title: what it is, ``unit`` its unit: ``"share"`` (0 to 1, written in percent), ``"dB"``,
            ``"ms"``, … or ``""``.
        high_is: whether a high number is ``"bad"``, ``"good"``, or neither (``""``).
        groups: what a module without a number shows of those inside: their sum, the highest or the
            lowest.
        categories: names, if the numbers are no amounts.
        stage: of the flow that it was measured at, ``""`` for none.
        note: how it was measured, or why there is nothing.
        name: of a built-in overlay, see :data:`~qatexplorer.session.overlays.NAMES`.
    """

    values: Mapping[str, float]
    title: str
    unit: str = ""
    high_is: Literal["bad", "good", ""] = ""
    groups: Groups = "highest"
    categories: tuple[str, ...] = ()
    stage: str = ""
    note: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        if self.high_is not in ("bad", "good", ""):
            raise OverlayError(f"high_is is {self.high_is!r}.", fix="Use 'bad', 'good' or ''.")
        if self.groups not in ("sum", "highest", "lowest"):
            raise OverlayError(
                f"groups is {self.groups!r}.", fix="Use 'sum', 'highest' or 'lowest'."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy can neither be pickled nor copied.
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return _made, ({**given, "values": dict(self.values)},)

    @classmethod
    def of(
        cls,
        values: Mapping[str, Any],
        title: str = "",
        unit: str = "",
        high_is: Literal["bad", "good", ""] = "",
        groups: Groups | None = None,
        note: str = "",
    ) -> Overlay:
        """An overlay of your own numbers, or of words (categories).

        Args:
            values: number or word by module path, path of a fake quant, or id of a graph node; NaN
                and None are not known.
            groups: None shows the worst inside: the lowest where high is good, else the highest.

        Raises OverlayError for what is no mapping, keys that are no text, values that are neither
        numbers nor words, or both.
        """
        if not isinstance(values, Mapping):
            raise OverlayError(
                f"an overlay is a mapping from paths to numbers, not a {type(values).__name__}.",
                fix="Pass a dict such as {'conv1': 0.5, 'fc': 0.1}.",
            )
        wrong = [key for key in values if not isinstance(key, str)]
        if wrong:
            raise OverlayError(
                f"a key of an overlay is a path; {wrong[0]!r} is a {type(wrong[0]).__name__}.",
                fix=_PATHS,
            )
        known = {key: value for key, value in values.items() if value is not None}
        words = [key for key, value in known.items() if isinstance(value, str)]
        if words and len(words) < len(known):
            number = next(key for key in known if key not in words)
            raise OverlayError(
                "an overlay has numbers or words, not both.",
                why=f"{words[0]!r} is {known[words[0]]!r}, {number!r} is {known[number]!r}.",
                fix="Make two overlays of them.",
            )
        categories = tuple(dict.fromkeys(map(str, known.values()))) if words else ()
        numbers = {
            key: float(categories.index(value)) if words else _number(key, value)
            for key, value in known.items()
        }
        return cls(
            {key: value for key, value in numbers.items() if not math.isnan(value)},
            title or "your numbers",
            unit,
            high_is,
            groups or ("lowest" if high_is == "good" else "highest"),
            categories,
            note=note,
        )

    @classmethod
    def from_model_explorer(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        graph_id: str | None = None,
        title: str = "",
        unit: str = "",
        high_is: Literal["bad", "good", ""] = "",
        groups: Groups | None = None,
    ) -> Overlay:
        """Read node data of Google's Model Explorer: a JSON file, or what it holds.

        The keys of its ``results`` are taken as module paths, paths of fake quants or ids of graph
        nodes. Its colours are not: they come from the values. ``graph_id`` chooses one of several
        graphs. Raises OverlayError for what does not follow the format, OSError for a file that
        cannot be read.
        """
        name, results = model_explorer.read(source, graph_id)
        return cls.of(results, title or name, unit, high_is, groups)

    def to_model_explorer(
        self, path: str | os.PathLike[str] | None = None, *, graph_id: str = "graph"
    ) -> dict[str, Any]:
        """The same as node data of Google's Model Explorer, written to ``path`` if one is given.

        ``graph_id`` is the id of the graph there. Numbers that are not finite are left out, as JSON
        has none.
        """
        said = self.unit.lower() in ("", self.title.lower())
        title = self.title if said else f"{self.title} ({self.unit})"
        rows: dict[str, float | str] = {
            key: self.categories[int(value)] if self.categories else value
            for key, value in self.values.items()
            if math.isfinite(value)
        }
        data = model_explorer.document(graph_id, title, rows, self.high_is == "good")
        if path is not None:
            model_explorer.write(path, data)
        return data

    def word(self, value: float) -> str:
        """A value with its unit, such as ``"3.1 %"``, ``"28.4 dB"`` or the name of its category."""
        if self.categories:
            return self.categories[int(value)]
        if math.isinf(value):
            return ("−" if value < 0 else "") + "∞" + (f" {self.unit}" if self.unit else "")
        if self.unit == "share":
            return "< 0.01 %" if 0 < value < 1e-4 else f"{100 * value:.3g} %"
        whole = value == int(value) and abs(value) >= 1000
        text = f"{value:,.0f}" if whole else f"{value:.4g}"
        return f"{text} {self.unit}".rstrip()

    def together(self, values: Iterable[float]) -> float | None:
        """What a module shows of the numbers inside it; None where there are none.

        Of categories, the one that all have in common; ``mixed``, if there is such a category and
        they differ; else None.
        """
        inside = list(values)
        if not inside:
            return None
        if self.categories:
            if len(set(inside)) == 1:
                return inside[0]
            return float(self.categories.index("mixed")) if "mixed" in self.categories else None
        if self.groups == "sum":
            return sum(inside)
        return max(inside) if self.groups == "highest" else min(inside)

    def unknown(self, snapshots: Iterable[Snapshot]) -> tuple[str, ...]:
        """Keys that are no module, fake quant or graph node of any of the snapshots."""
        known: set[str] = set()
        for snapshot in snapshots:
            known |= set(snapshot.by_path) | set(snapshot.site_by_path)
            known |= {node.id for node in snapshot.graph.nodes} if snapshot.graph else set()
        return tuple(key for key in self.values if key not in known)

    def checked(self, snapshots: Iterable[Snapshot]) -> Overlay:
        """Itself. Raises OverlayError with the keys that none of the snapshots has."""
        found = tuple(snapshots)
        unknown = self.unknown(found)
        if not unknown:
            return self
        shown, more = first(unknown, _UNKNOWN)
        names = list(found[-1].by_path) + list(found[-1].site_by_path) if found else []
        near = difflib.get_close_matches(unknown[0], names, n=3, cutoff=0.5)
        hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
        raise OverlayError(
            f"the model has nothing at {', '.join(map(repr, [*shown]))}"
            f"{f' {more[0]}' if more else ''}.",
            why="They are no module, no fake quant and no graph node of a stage reached so far.",
            fix=f"{_PATHS}{hint}",
        )

    def at(self, stage: str) -> Overlay:
        """The same numbers, said to be of ``stage``."""
        return replace(self, stage=stage)

    def sorted_items(self) -> list[tuple[str, float]]:
        """Paths and values, what to look at first first: the highest, or the lowest where high is
        good."""
        return sorted(self.values.items(), key=lambda item: item[1], reverse=self.high_is != "good")

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with the columns ``path`` and ``value`` (the category's name,
        where there are categories). Raises InputError without pandas."""
        cells = list(self.values.values())
        named = [self.categories[int(cell)] for cell in cells] if self.categories else cells
        return table_of_columns(
            [
                ("path", str, list(self.values)),
                ("value", str if self.categories else float, named),
            ]
        )

    def __repr__(self) -> str:
        where = f" at stage {self.stage!r}" if self.stage else ""
        meaning = {"bad": "high is bad", "good": "high is good", "": ""}[self.high_is]
        unit = self.unit if not self.categories else "categories"
        about = ", ".join(filter(None, (unit, meaning)))
        head = f"Overlay {self.title!r}{f' ({about})' if about else ''}{where}: "
        head += f"{len(self.values):,} known"
        rows, more = first(self.sorted_items(), _SHOWN)
        lines = columns([(f"  {path or '(the model)'}", self.word(v)) for path, v in rows])
        return at_most([head, *([self.note] if self.note else []), *lines, *more])


def _made(given: dict[str, Any]) -> Overlay:
    return Overlay(**given)


def _number(key: str, value: Any) -> float:
    """``value`` as a float: numbers, NumPy's scalars and tensors with one element."""
    item = getattr(value, "item", None)
    try:
        plain = item() if callable(item) else value
    except (ValueError, RuntimeError, TypeError):
        plain = value
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise OverlayError(
            f"{type(value).__name__} is no number.",
            where=key,
            why=f"The value at {key!r} is {str(value)[:80]!r}.",
            fix="Give one number (or one word) for each path.",
        )
    return float(plain)
