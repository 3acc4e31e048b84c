"""What was written, with sizes; what ONNX Runtime says of it; what could not be written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qatexplorer.evaluate.evaluation import format_size
from qatexplorer.flows.base import Flow
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


def cannot_script(flow: Flow) -> str:
    """Why there is no script of a walk in this flow, in a sentence; ``""`` where there is one."""
    if flow.kind() == "layers":
        return "Not in this flow: its calls are not written as a script."
    return ""


def script_tip(flow: Flow) -> str:
    """What the script is, and needs."""
    torchao = "" if flow.kind() == "modules" else ", torchao"
    return f"The walk so far as a plain PyTorch script, which needs torch{torchao} and NumPy only"


def cannot_export(flow: Flow) -> str:
    """Why there is no folder of a model of this flow, in a sentence; ``""`` where there is one."""
    if flow.exports:
        return ""
    return (
        "Not in this flow: its weights are torchao's own tensors. "
        "torch.save(session.int8.state_dict(), path) keeps them."
    )


def export_tip(flow: Flow) -> str:
    """What the folder holds."""
    what = (
        "The program that int8 is lowered from" if flow.lowers_to_packed else "The int8 model, ONNX"
    )
    return f"{what}, a loader and a model card; goes to int8 if need be"


def _whole(parts: Iterable[Html]) -> Html:
    return tag("div", join(parts), class_="qx-taken")
