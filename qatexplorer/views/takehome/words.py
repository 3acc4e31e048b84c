"""What was written, with sizes; what ONNX Runtime says of it; what could not be written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qatexplorer.evaluate.evaluation import format_size
from qatexplorer.takehome.export import Exported, agreement_words
from qatexplorer.takehome.pte import pte_words
from qatexplorer.views.common.html import Html, code, join, tag

NO_DOWNLOAD = "It is too large to be handed to the browser."


def file_html(path: Path, size: int, note: str = "") -> Html:
    """One file that was written."""
    words = tag(
        "p", "Written: ", code(path), f" ({format_size(size)}).", f" {note}" if note else ""
    )
    return _whole([words])


def folder_html(made: Exported) -> Html:
    """A folder that was written, and its files."""
    names = [tag("li", code(name), f" {format_size(made.sizes[name])}") for name in made.files]
    parts = [tag("p", "Written: ", code(made.folder)), tag("ul", *names)]
    if made.onnx is not None:
        parts.append(tag("p", agreement_words(made.onnx)))
    if made.pte is not None:
        parts += [tag("p", words) for words in pte_words(made.pte)]
    return _whole([*parts, *(tag("p", f"▲ {note}") for note in made.notes)])


def busy_words(what: str, seconds: float) -> str:
    """What is being done, and since when."""
    return f"{what} … {seconds:.0f} s" if seconds >= 1 else f"{what} …"


def _whole(parts: Iterable[Html]) -> Html:
    return tag("div", join(parts), class_="qx-taken")
