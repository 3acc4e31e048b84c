"""Write ``docs/checks-trust.md``: what the checks say of models, beside what torch alone comes to.

Run from the repository: ``python -m tests.tools.trust_table [group, id or model …]``; with names
only those rows are made anew. Groups are torch, written, timm and transformers. Nothing in the
table is typed by hand. The exit code is 1 if a model that torch alone takes to int8 rightly has an
error.
"""

from __future__ import annotations

import platform
import re
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from qatexplorer.quantizers.engine_choice import default_backend
from tests.benchmarks.bench_watch import cpu_name
from tests.support.trust import (
    DEEP,
    DEEP_APART,
    FLOAT_APART,
    GROUPS,
    INT8_APART,
    Checked,
    Trusted,
    Verdict,
    by_torch,
    check,
)

OUT = Path(__file__).parents[2] / "docs" / "checks-trust.md"
COLUMNS = "| model | way | int8 apart | errors | warnings | infos | rules |\n"
RULER = "|---|---|---:|---:|---:|---:|---|\n"
WRONG_COLUMNS = "| model | way | what torch alone comes to | errors | warnings | infos | rules |\n"
WRONG_RULER = "|---|---|---|---:|---:|---:|---|\n"


def head(right: int, models: int, errors: int, silent: int, wrong: int) -> str:
    """What the table is, and its sums."""
    verdict = "no error finding" if not errors else f"{errors} error findings"
    return f"""# Can the findings be trusted?

Made by `python -m tests.tools.trust_table` with torch {torch.__version__}, Python
{platform.python_version()}, on {cpu_name()}, engine {default_backend().engine}, random weights.

Whether a model goes to int8 rightly is decided by torch's calls alone: prepare, calibrate on random
batches, convert, run. Rightly means: with its fake quants off the prepared model is the float model
(within {FLOAT_APART:g} of what the output spans), weights are int8 and each of them was simulated,
and int8 follows the fake quants (mean distance within {INT8_APART:.0%} of the span; of a model with
{DEEP} int8 weights or more {DEEP_APART:.0%}). Each session is checked as it is given, and again
after calibrating and converting.

**{right} ways of {models} models go to int8 rightly: {verdict}.** Of {wrong} ways that do not,
the checks find an error in {wrong - silent}.

"""


def row(case: Trusted, verdict: Verdict, checked: Checked) -> str:
    counts = Counter(one.severity for one in checked.findings)
    rules = Counter((one.id, one.name) for one in checked.findings)
    named = ", ".join(
        f"{id} {name}" + (f" ({count})" if count > 1 else "")
        for (id, name), count in sorted(rules.items())
    )
    far = "" if verdict.apart is None else f"{verdict.apart:.2%}"
    numbers = [str(counts[severity]) for severity in ("error", "warning", "info")]
    middle = _cell(verdict.wrong) if verdict.wrong else far
    return "| " + " | ".join([case.name, case.way, middle, *numbers, named or "–"]) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def rows_now() -> dict[tuple[str, str], str]:
    """The rows of the table as it is, by model and way."""
    if not OUT.exists():
        return {}
    lines = [line for line in OUT.read_text().splitlines() if line.startswith("| ")]
    found = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if len(cells) > 2 and cells[0] != "model":
            found[cells[0], cells[1]] = line
    return found


def write(rows: dict[tuple[str, str], str], cases: list[Trusted]) -> None:
    """The rows of ``cases`` that are known, in their order."""
    known = [rows[case.name, case.way] for case in cases if (case.name, case.way) in rows]
    right = [line for line in known if re.search(r" \| (\d+\.\d+%) \| ", line)]
    wrong = [line for line in known if line not in right]
    errors = sum(errors_in(line) for line in right)
    silent = sum(not errors_in(line) for line in wrong)
    models = len({line.split(" | ")[0] for line in right})
    text = head(len(right), models, errors, silent, len(wrong))
    text += "## Right in int8\n\n" + COLUMNS + RULER + "".join(f"{line}\n" for line in right)
    text += "\n## Not right by torch alone\n\n" + WRONG_COLUMNS + WRONG_RULER
    OUT.write_text(text + "".join(f"{line}\n" for line in wrong))


def errors_in(line: str) -> int:
    """The number of error findings that a row tells."""
    return int(re.split(r"(?<!\\) \| ", line)[3])


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases = [case for group in GROUPS.values() for case in group()]
    wanted = {case.id for name in names for case in GROUPS.get(name, list)()} | set(names)
    false_errors = 0
    for case in cases:
        if names and case.id not in wanted and case.name not in wanted:
            continue
        started = time.perf_counter()
        verdict, checked = by_torch(case), check(case)
        made = row(case, verdict, checked)
        print(f"{time.perf_counter() - started:6.1f} s  {made}", flush=True)
        for failed in checked.failed:
            print(f"          skipped: {failed}")
        if not verdict.wrong:
            false_errors += len(checked.errors)
            for one in checked.errors:
                print(f"          FALSE {one.id} {one.place}: {one.message}")
        # Read anew: several may run side by side, each on some of the models.
        write({**rows_now(), (case.name, case.way): made}, cases)
    return int(bool(false_errors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
