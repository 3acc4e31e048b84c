"""A folder with all that is needed to use the int8 model elsewhere, written whole or not at all."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import fx, nn

from qatexplorer._version import __version__
from qatexplorer.data import as_args, call_model
from qatexplorer.errors import ExportError
from qatexplorer.evaluate.evaluation import Evaluation, format_size
from qatexplorer.evaluate.parity import percent
from qatexplorer.flows.pt2e_quantizers import name_of
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.quantizers.cpu import cpu_facts
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.shown import Shown, at_most, error_line
from qatexplorer.takehome.onnx import Agreement, missing, write_onnx
from qatexplorer.takehome.pack import packed
from qatexplorer.takehome.pt2e_parts import exported_program
from qatexplorer.takehome.pte import PteRun, make_pte, pte_words
from qatexplorer.takehome.records import Walk
from qatexplorer.takehome.script import script_of

BATCHES = 4
"""Batches of evaluation data that ONNX Runtime is compared on."""


@dataclass(frozen=True, repr=False)
class Exported(Shown):
    """What was written.

    Attributes:
        folder: absolute path. files: names in it.
        onnx: what ONNX Runtime computes; None where there is no ONNX file.
        pte: what ExecuTorch's runtime computes; None where there is no program for it.
        notes: what is amiss, and what could not be written and why, in sentences.
        sizes: bytes of each file.
    """

    folder: Path
    files: tuple[str, ...]
    onnx: Agreement | None = None
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    pte: PteRun | None = None

    def __repr__(self) -> str:
        if self.pte is not None:
            (name,) = self.files
            size = format_size(self.sizes[name])
            lines = [f"written: {self.folder / name} ({size})", *pte_words(self.pte)]
            return at_most([*lines, *self.notes])
        lines = [f"written to {self.folder}: {', '.join(self.files)}"]
        if self.onnx is not None:
            lines.append(agreement_words(self.onnx))
        return at_most([*lines, *self.notes])


def agreement_words(onnx: Agreement) -> str:
    """What ONNX Runtime computes beside torch, in a sentence."""
    text = (
        f"model.onnx in ONNX Runtime {onnx.runtime}, {onnx.samples} samples: outputs at most "
        f"{percent(onnx.largest)} of their range from torch's"
    )
    same = onnx.same_answer
    return f"{text}." if same is None else f"{text}, {percent(same)} of answers the same."


def export(
    folder: str | os.PathLike[str],
    walk: Walk,
    int8: nn.Module,
    evaluation: Evaluation | None = None,
    batches: Iterable[Any] = (),
    known: Iterable[str] = (),
    progress: Callable[[str], Any] | None = None,
    reference: nn.Module | None = None,
) -> Exported:
    """Write the int8 model of ``walk``.

    Args:
        folder: is made; it must not be there, or be empty.
        evaluation: for the model card, None for none.
        batches: inputs that ONNX Runtime is compared on; the first :data:`BATCHES` are used.
        reference: what ``int8`` was lowered from, where that cannot be saved: it is written
            instead. known: what is amiss with the int8 model, in sentences.
        progress: called with what is being written; what it raises ends the writing.

    Files: ``int8.safetensors`` (state dict as codes, scales and zero points), ``walk.py`` (the
    script, whose ``load`` rebuilds the model from them without unpickling), ``example.safetensors``
    (example inputs and what the model gives for them), ``model.onnx``, ``exported.pt2`` (both where
    torch can), ``README.md`` (the model card). With a ``reference`` it is ``reference.pt2`` in
    place of ``int8.safetensors`` and those two. Raises ExportError; then nothing is left behind.
    """
    target, say = check_free(folder), progress or (lambda _: None)
    made: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        if reference is not None:
            onnx, notes = None, _write_program(made, walk, reference, int8, evaluation, known, say)
        else:
            onnx, notes = _write(made, walk, int8, evaluation, batches, known, say)
        made.chmod(0o755)
        os.replace(made, target)
        made = None
        sizes = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
    except OSError as error:
        raise _cannot(target, error) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    return Exported(target, tuple(sizes), onnx, notes, sizes)


def export_pte(
    file: str | os.PathLike[str],
    reference: fx.GraphModule,
    example: Any,
    batches: Iterable[Any] = (),
    progress: Callable[[str], Any] | None = None,
) -> Exported:
    """Write ``reference`` as one file for ExecuTorch's runtime, lowered to XNNPACK.

    Args:
        file: must not be there.
        batches: inputs that it is compared on; the first :data:`BATCHES` are used.

    It is run before it is written. Raises ExportError; then nothing is left behind.
    """
    target, say = check_free_file(file), progress or (lambda _: None)
    say("lowering to XNNPACK")
    with preserved_state(reference):
        program, run = make_pte(reference.eval(), example, islice(batches, BATCHES))
    say("the file")
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", dir=target.parent)
        part = Path(name)
        with open(handle, "wb") as opened:
            opened.write(program)
        part.chmod(0o644)
        os.replace(part, target)
        part = None
    except OSError as error:
        raise _cannot(target, error) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    sizes = {target.name: len(program)}
    return Exported(target.parent, (target.name,), sizes=sizes, pte=run)


def is_pte(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a program for ExecuTorch."""
    return Path(path).suffix == ".pte"


def check_free_file(file: str | os.PathLike[str]) -> Path:
    """The absolute path. Raises ExportError if something is there."""
    target = Path(file).expanduser().absolute()
    if target.exists():
        raise ExportError(
            f"{target} is there already.", fix="Give the name of a file that is not there."
        )
    return target


def check_free(folder: str | os.PathLike[str]) -> Path:
    """The absolute path. Raises ExportError if it is a file or a folder that holds something, or if
    it cannot be looked at."""
    target = Path(folder).expanduser().absolute()
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return target
        what = "holds files already" if target.is_dir() else "is a file"
    except OSError as error:
        raise _cannot(target, error) from error
    raise ExportError(f"{target} {what}.", fix="Give the name of a folder that is not there.")


def _cannot(target: Path, error: OSError) -> ExportError:
    return ExportError(
        f"{target} cannot be written: {error.strerror or error}.",
        why="Nothing of it was left behind.",
        fix="Choose a folder on a disk with room, where you may write.",
    )


def _write(
    folder: Path,
    walk: Walk,
    int8: nn.Module,
    evaluation: Evaluation | None,
    batches: Iterable[Any],
    known: Iterable[str],
    say: Callable[[str], Any],
) -> tuple[Agreement | None, tuple[str, ...]]:
    engine, example = walk.options.qconfig.backend, walk.options.example_inputs
    say("int8 weights")
    _save(int8.state_dict(), folder / "int8.safetensors")
    (folder / "walk.py").write_text(script_of(walk, loads=True), encoding="utf-8")
    notes = list(known)
    onnx: Agreement | None = None
    with preserved_state(int8), quantized_engine(engine), torch.no_grad():
        given = {"inputs": example, "outputs": _plain(call_model(int8.eval(), example))}
        _save(given, folder / "example.safetensors")
        say("ONNX")
        if missing():
            packages = " and ".join(missing())
            notes.append(f"No model.onnx: {packages} is not installed (pip install {packages}).")
        else:
            try:
                first = islice((pair[0] for pair in batches), BATCHES)
                onnx = write_onnx(int8, example, first, folder / "model.onnx")
            except ExportError as error:
                (folder / "model.onnx").unlink(missing_ok=True)
                notes.append(f"No model.onnx: {error.message}")
        say("torch.export")
        notes += _exported(int8, example, folder / "exported.pt2")
    say("model card")
    card = _card(walk, evaluation, onnx, notes)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return onnx, tuple(notes)


def _write_program(
    folder: Path,
    walk: Walk,
    reference: nn.Module,
    int8: nn.Module,
    evaluation: Evaluation | None,
    known: Iterable[str],
    say: Callable[[str], Any],
) -> tuple[str, ...]:
    example = walk.options.example_inputs
    say("reference program")
    notes = (*known, NO_PACKED, NO_ONNX)
    with preserved_state(reference), preserved_state(int8), torch.no_grad():
        given = {
            "inputs": example,
            "outputs": _plain(call_model(int8.eval(), example)),
            "reference": _plain(call_model(reference.eval(), example)),
        }
        _save(given, folder / "example.safetensors")
        whole = io.BytesIO()
        torch.export.save(exported_program(reference, *as_args(example)), whole)
        (folder / "reference.pt2").write_bytes(whole.getbuffer())
    (folder / "walk.py").write_text(script_of(walk), encoding="utf-8")
    say("model card")
    card = _card(walk, evaluation, None, list(notes), PROGRAM_USE)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return notes


NO_PACKED = (
    "No int8.safetensors: the lowered model holds weights that oneDNN has packed for this CPU, "
    "which no file can hold; the program that it is lowered from is reference.pt2."
)
NO_ONNX = (
    "No model.onnx: torch's exporter by TorchScript does not take an exported program, and the "
    "other one needs onnxscript."
)
PROGRAM_USE = (
    "```python",
    "import torch",
    "from walk import lower  # walk.py of this folder; it needs torch, torchao and NumPy",
    "",
    "program = torch.export.load('reference.pt2')  # float, with quantize and dequantize",
    "args, kwargs = program.example_inputs",
    "int8 = lower(program.module(), kwargs or args)  # by oneDNN's kernels, on an x86 CPU",
    "```",
    "",
    "`example.safetensors` has inputs, and what int8 (`outputs`) and the program (`reference`)",
    "give for them; `walk.py` makes both from the float model and the data.",
)


def _plain(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.dequantize() if output.is_quantized else output
    if isinstance(output, (tuple, list)):
        return [_plain(one) for one in output]
    if isinstance(output, dict):
        return {name: _plain(one) for name, one in output.items()}
    return str(type(output).__name__)


def _save(state: Mapping[str, Any], file: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = {name: packed(value, name, tensors) for name, value in state.items()}
    # torch's modules read their own state by the version that it was written with.
    versions = getattr(state, "_metadata", {})
    metadata = {"tree": json.dumps(tree), "versions": json.dumps(versions)}
    # Not save_file, whose error is no OSError where the disk is full.
    file.write_bytes(save(tensors, metadata=metadata))


def _exported(int8: nn.Module, example: Any, file: Path) -> list[str]:
    args, kwargs = as_args(example)
    try:
        whole = io.BytesIO()  # so that a full disk is not taken for a model that cannot be written
        torch.export.save(torch.export.export(int8, args, kwargs), whole)
    except Exception as error:
        reason = error_line(error, 160)
        return [f"No exported.pt2: torch.export does not take this int8 model ({reason})."]
    file.write_bytes(whole.getbuffer())
    return []


def _card(
    walk: Walk,
    evaluation: Evaluation | None,
    onnx: Agreement | None,
    notes: list[str],
    use: tuple[str, ...] = (),
) -> str:
    kind = type(walk.base).__name__
    plan = walk.options.qconfig
    how = f"qconfig {plan.name}, engine {plan.backend}"
    if walk.flow.offers_quantizer:
        how = f"quantizer {name_of(walk.options.quantizer)}"
    lines = [
        f"# {kind}, int8",
        "",
        f"Made by torch's {walk.flow.title}, {how}.",
        "",
        "| | |",
        "|---|---|",
        f"| CPU | {cpu_facts()['name']} |",
        f"| torch | {torch.__version__} |",
        f"| Python | {platform.python_version()} |",
        f"| qatexplorer | {__version__} |",
        "",
        *_table(evaluation),
        "## Use",
        "",
        *(use or _usual_use(kind)),
    ]
    if onnx is not None:
        nodes = f"{onnx.quantize} QuantizeLinear and {onnx.dequantize} DequantizeLinear nodes"
        lines += ["", f"{agreement_words(onnx)} It has {nodes}."]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def _usual_use(kind: str) -> tuple[str, ...]:
    return (
        "```python",
        "from walk import load  # walk.py of this folder; it needs torch, NumPy and safetensors",
        "",
        f"int8 = load({kind}(…), 'this/folder')  # the float model, with any weights",
        "```",
        "",
        "`int8.safetensors` holds the codes, scales and zero points; nothing is unpickled.",
    )


def _table(evaluation: Evaluation | None) -> list[str]:
    if evaluation is None:
        return ["No evaluation data was given, so there is no accuracy here.", ""]
    lines = [f"| | {evaluation.metric_name} | bytes on disk |", "|---|---:|---:|"]
    for result in evaluation.values():
        metric = "–" if result.metric is None else f"{result.metric.value:.4f}"
        size = "–" if result.size_bytes is None else f"{result.size_bytes:,}"
        lines.append(f"| {result.words} | {metric} | {size} |")
    return [*lines, ""]
