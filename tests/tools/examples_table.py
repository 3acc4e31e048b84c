"""Write the README's table of the embedded examples: what each comes to in real int8, and where.

Run from the repository: ``python -m tests.tools.examples_table``. Each example is calibrated and
trained as its suggested settings say, with three seeds, on the engine that the probe chooses; once
on this CPU as it is, and once (on x86) on the kernels that a CPU without VNNI takes. Nothing in the
table is typed by hand but what an example shows.
"""

from __future__ import annotations

import json
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import torch

import qatexplorer as qx
from qatexplorer.app import doctor
from qatexplorer.quantizers.engine_choice import default_backend

from ..support.engines import WITHOUT_VNNI, can_do_without_vnni, run_without_vnni

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- examples: python -m tests.tools.examples_table -->", "<!-- /examples -->"
SEEDS = (0, 1, 2)

ROWS: dict[str, tuple[str, dict[str, Any], str]] = {
    "`digits_cnn`": ("digits_cnn", {}, "all stages; 8 bits cost this net nothing"),
    "`digits_depthwise`": (
        "digits_depthwise",
        {},
        "why QAT: unequal channels and one scale per weight",
    ),
    "same, default qconfig": (
        "digits_depthwise",
        {"qconfig": None},
        "one scale per output channel",
    ),
    "`digits_mlp`": (
        "digits_mlp",
        {"stubs": "layers"},
        "no stubs, plain `+`: only the way around each layer reaches int8",
    ),
}


def measure(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Accuracies in percent of one example: float, PTQ int8, and QAT int8 by seed."""
    qat: list[float] = []
    for seed in SEEDS:
        example = qx.zoo.load(name)
        given = {"qconfig": example.suggested.get("qconfig"), **settings}
        session = qx.Session(example.model, example.example_inputs, data=example.data, **given)
        session.train(**{**example.training, "seed": seed})
        session.goto(session.flow.int8_stage)
        result = session.evaluate(latency=False)
        qat.append(100 * result["int8"].metric.value)
        print(f"{name} seed {seed}: {qat[-1]:.1f}", file=sys.stderr)
    return {
        "float": 100 * result["float"].metric.value,
        "ptq": 100 * result["ptq"].metric.value,
        "qat": qat,
    }


def measure_all() -> dict[str, Any]:
    """The rows on the kernels of this process, with the engine chosen and the CPU."""
    torch.set_num_threads(1)
    cpu, best = doctor.examine()["cpu"], default_backend()
    rows = {title: measure(name, settings) for title, (name, settings, _) in ROWS.items()}
    return {"engine": best.engine, "qconfig": best.qconfig, "cpu": cpu, "rows": rows}


def table(here: dict[str, Any], without: dict[str, Any] | None) -> str:
    """Markdown: the sentence on where it was measured, and the rows."""
    kinds = [here] + ([without] if without else [])
    features = " ".join(here["cpu"]["features"] or ["features unknown"])
    text = (
        f"Measured with torch {torch.__version__} on {here['cpu']['name']} ({features}), where the "
        f"probe chooses the engine `{here['engine']}`"
    )
    if without:
        held = " ".join(f"`{name}={value}`" for name, value in WITHOUT_VNNI.items())
        text += (
            f", and on the same CPU held to the kernels of one without VNNI ({held}), where it "
            f"chooses `{without['engine']}`"
        )
    marks = [f" on `{kind['engine']}`" for kind in kinds]
    heads = ["example", "float"]
    heads += [f"post-training int8{mark}" for mark in marks] + [f"QAT int8{mark}" for mark in marks]
    lines = [
        textwrap.fill(f"{text}.", 100),
        "",
        " | ".join(["", *heads, "what it shows", ""]).strip(),
    ]
    lines.append("|" + "---|" * (len(heads) + 1))
    for title, (_, _, shows) in ROWS.items():
        cells = [title, f"{here['rows'][title]['float']:.1f}"]
        cells += [f"{kind['rows'][title]['ptq']:.1f}" for kind in kinds]
        cells += [_range(kind["rows"][title]["qat"]) for kind in kinds]
        lines.append(f"| {' | '.join([*cells, shows])} |")
    return "\n".join(lines)


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def main() -> None:
    warnings.simplefilter("ignore")
    if "--json" in sys.argv:
        print(json.dumps(measure_all()))
        return
    without = None
    if can_do_without_vnni():
        without = json.loads(run_without_vnni("tests.tools.examples_table", "--json"))
    made = table(measure_all(), without)
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
