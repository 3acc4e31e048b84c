"""Write ``docs/compatibility.md``: on which torch and Python the tests have passed, and when.

In an environment with the torch in question, from the repository::

    python -m pytest --junitxml=result.xml tests/against_torch …
    python -m tests.tools.compatibility result.xml [more.xml …]

makes the row of that torch and Python anew, from all files given together; a test that several of
them have counts once, as in the last. Without files the table is written again from the results
that are kept. Nothing in it is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_suffix(".json")
TABLE = ROOT / "docs" / "compatibility.md"
HEAD = """# Releases of torch that are tested

Made by `python -m tests.tools.compatibility` from pytest's own results. Of each release and Python
the newest run is kept. "Ran" has the folders of `tests` and how many tests of each ran; those of
`against_torch` compare every stage with torch's one call, bit for bit, in eager and FX, through
training to int8. A test that is skipped says why. All on Linux, x86-64, CPU.

| torch | Python | torchvision | date | passed | failed | skipped | ran | why |
|---|---|---|---|---:|---:|---:|---|---|
"""
_FRAGMENT = 140


def read(paths: Iterable[Path]) -> dict[str, Any]:
    """One result from JUnit files of one torch and Python.

    Raises ValueError where they are of different ones, or say nothing of torch.
    """
    suites = [suite for path in paths for suite in ElementTree.parse(path).iter("testsuite")]
    about = [{p.get("name"): p.get("value") for p in s.iter("property")} for s in suites]
    environments = {tuple(a.get(key) for key in ("torch", "python", "torchvision")) for a in about}
    if len(environments) != 1:
        raise ValueError(f"results of different environments: {sorted(map(str, environments))}")
    torch, python, torchvision = environments.pop()
    if torch is None:
        raise ValueError("the result names no torch; run pytest in this repository.")
    ran: Counter[str] = Counter()
    failed: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    cases = {
        f"{case.get('classname')}::{case.get('name')}": case
        for suite in suites
        for case in suite.iter("testcase")
        if case.get("name")  # one without is the test in which pytest was interrupted
    }
    for name, case in cases.items():
        broken = [*case.iter("failure"), *case.iter("error")]
        left = case.find("skipped")
        if broken:
            failed[name] = _first_line(broken[0])
        elif left is not None:
            skipped[_first_line(left)] += 1
            continue
        ran[name.split(".")[1]] += 1
    return {
        "torch": torch,
        "python": python,
        "torchvision": torchvision,
        "date": max(str(suite.get("timestamp")) for suite in suites)[:10],
        "ran": dict(sorted(ran.items())),
        "failed": failed,
        "skipped": dict(skipped),
    }


def _first_line(node: ElementTree.Element) -> str:
    text = " ".join(str(node.get("message")).split())
    return text if len(text) <= _FRAGMENT else text[: _FRAGMENT - 1] + "…"


def kept() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def with_result(results: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """``results`` with the row of ``new`` replaced or added, by torch, then Python."""

    def key(result: dict[str, Any]) -> tuple[Any, ...]:
        return (*_numbers(result["torch"]), *_numbers(result["python"]))

    others = [result for result in results if key(result) != key(new)]
    return sorted([*others, new], key=key)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def passed_on(results: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The releases of torch on which no test failed, on any Python that was tried."""
    releases: dict[str, bool] = {}
    for result in results:
        release = result["torch"].partition("+")[0]
        releases[release] = releases.get(release, True) and not result["failed"]
    return tuple(release for release, clean in releases.items() if clean)


def table(results: Sequence[dict[str, Any]]) -> str:
    return HEAD + "".join(_row(result) + "\n" for result in results)


def _row(result: dict[str, Any]) -> str:
    failed, skipped = result["failed"], result["skipped"]
    why = [f"failed: `{name}`: {text}" for name, text in failed.items()]
    why += [f"skipped {number}: {text}" for text, number in skipped.items()]
    cells = [
        result["torch"],
        result["python"],
        result["torchvision"] or "none",
        result["date"],
        str(sum(result["ran"].values()) - len(failed)),
        str(len(failed)),
        str(sum(skipped.values())),
        ", ".join(f"{room} {number}" for room, number in result["ran"].items()),
        "<br>".join(why),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(arguments: Sequence[str]) -> None:
    results = kept()
    if arguments:
        results = with_result(results, read(Path(argument) for argument in arguments))
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(results))


if __name__ == "__main__":
    main(sys.argv[1:])
