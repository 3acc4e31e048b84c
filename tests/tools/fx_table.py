"""Write ``tests/against_torch/FX_MODELS.md``: each architecture in the FX flow against torch alone.

Run from the repository: ``python -m tests.tools.fx_table [name …]``; with names only those rows
are made anew. Nothing in the table is typed by hand; a model that is not equal to torch's one call
stops the script.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch

from tests.against_torch.fx_reference import BACKEND, Outcome, compare_fx
from tests.support.models_fx import ALL_FX

OUT = Path(__file__).parents[1] / "against_torch" / "FX_MODELS.md"
HEAD = f"""# Architectures in the FX flow

Made by `python -m tests.tools.fx_table` with torch {torch.__version__}, backend {BACKEND}, random
weights. "Equal" means: generated code, graph, module types, state keys, values, five training
steps, and (where torch's int8 model runs) reference and int8 outputs are those of torch's own
`prepare_qat_fx` and `convert_fx`, bit for bit. Otherwise torch's own call raises too, and the last
column is what the explorer says.

| model | prepared, trained | int8 | operations | fake quants | shared | what the message says |
|---|---|---|---:|---:|---:|---|
"""


def row(name: str, outcome: Outcome) -> str:
    error = outcome.refused or outcome.int8_error
    text = ""
    if error is not None:
        where = f" (`{error.where}`)" if error.where else ""
        text = " ".join(f"{error.message}{where}".split()).replace("|", "\\|")
    if outcome.refused is not None:
        cells = [name, "refused", "–", "–", "–", "–", text]
    elif outcome.stopped:
        text = f"In training both raise: {' '.join(outcome.stopped.split())}".replace("|", "\\|")
        nodes, sites = str(outcome.nodes), str(outcome.sites)
        cells = [name, "equal until it raises", "–", nodes, sites, "–", text]
    else:
        insert = outcome.session.snapshots["insert"]
        shared = sum(bool(site.aliases) for site in insert.sites)
        int8 = "equal" if outcome.int8_error is None else "does not run"
        cells = [name, "equal", int8, str(outcome.nodes), str(outcome.sites), str(shared), text]
    return "| " + " | ".join(cells) + " |"


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
    for case in ALL_FX:
        if names and case.name not in names:
            continue
        started = time.perf_counter()
        model, x = case()
        outcome = compare_fx(model, x if isinstance(x, dict) else (x,))
        rows[case.name] = row(case.name, outcome)
        print(f"{time.perf_counter() - started:6.1f} s  {rows[case.name]}", flush=True)
        known = [rows[case.name] for case in ALL_FX if case.name in rows]
        OUT.write_text(HEAD + "\n".join(known) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
