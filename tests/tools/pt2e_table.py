"""Write ``tests/against_torch/PT2E_MODELS.md``: architectures in the PT2E flow against torch alone.

Run from the repository: ``python -m tests.tools.pt2e_table [name …]``; with names only those rows
are made anew. Nothing in the table is typed by hand; a model that is not equal to the unwatched
calls stops the script.
"""

from __future__ import annotations

import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import torch

from tests.against_torch.pt2e_reference import Walk, compare_pt2e
from tests.support.models_pt2e import ARCHITECTURES, inputs_of

OUT = Path(__file__).parents[1] / "against_torch" / "PT2E_MODELS.md"
HEAD = f"""# Architectures in the PT2E flow

Made by `python -m tests.tools.pt2e_table` with torch {torch.__version__} and torchao
{metadata.version("torchao")}, X86InductorQuantizer, random weights. "Equal" means: those of
`torch.export`, `prepare_qat_pt2e`, five training steps, `convert_pt2e` and
`lower_pt2e_quantized_to_x86` called alone, bit for bit. Of the exported, the prepared, the trained
and the reference model that is generated code, graph, module types, state keys and values; of
training the losses; of the reference and the lowered model the outputs. One thing the flow does of
its own, and it is done to the other side too: `move_exported_model_to_eval` leaves the dropout of
`scaled_dot_product_attention` on, and it is set to 0 before `convert_pt2e`. Lowering runs for
batches of any size where torchao alone lowers for that of the example inputs. A model that is not
equal stops the script.

| model | to reference | lowered | operations | annotated | fake quants | notes |
|---|---|---|---:|---:|---:|---|
"""


def row(name: str, walk: Walk) -> str:
    graph = walk.prepared.graph
    assert graph is not None
    annotated = sum(one.rounds for one in walk.prepared.annotations)
    lowered = walk.lowered
    notes = [*walk.exported.notes, *(lowered.notes if lowered is not None else ())]
    if lowered is None:
        notes.append(f"torchao's lowering raises: {walk.not_lowered}")
    if walk.not_runnable:
        notes.append(f"as torchao lowers it, it raises: {walk.not_runnable}")
    text = " ".join(" ".join(notes).split()).replace("|", "\\|")
    counts = [str(len(graph.nodes)), str(annotated), str(len(walk.prepared.placed))]
    return (
        "| "
        + " | ".join([name, "equal", "raises" if lowered is None else "equal", *counts, text])
        + " |"
    )


def rows_now() -> dict[str, str]:
    """The rows of the table as it is, by model."""
    if not OUT.exists():
        return {}
    lines = [line for line in OUT.read_text().splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[1:]}


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = rows_now()
    for case in ARCHITECTURES:
        if names and case.name not in names:
            continue
        started = time.perf_counter()
        model, x = case()
        rows[case.name] = row(case.name, compare_pt2e(model, inputs_of(x)))
        print(f"{time.perf_counter() - started:6.1f} s  {rows[case.name]}", flush=True)
        known = [rows[case.name] for case in ARCHITECTURES if case.name in rows]
        OUT.write_text(HEAD + "\n".join(known) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
