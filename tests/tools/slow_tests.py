"""Chooses what the inner loop leaves out, from a result that was kept with ``--junitxml``.

    python -m pytest -m "not browser and not alone" -n 2 --dist loadfile --junitxml=result.xml
    python -m tests.tools.slow_tests result.xml   # writes tests/slow.txt

The slowest test functions go, until what is left takes ``--seconds`` of one core. Of one with
cases the first stays, if it is quick itself. ``tests/conftest.py`` marks what is listed ``slow``.
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

SECONDS = 260.0
"""Of one core: two processes, and half a minute for pytest and imports in each."""
QUICK = 1.0  # of the one case that stays
LIST = Path(__file__).resolve().parents[1] / "slow.txt"
HEAD = "# Written by tests.tools.slow_tests. With a * the first of the cases stays in.\n"


def seconds_of(result: Path) -> dict[str, list[float]]:
    """Seconds of the cases of each test function, in the order of the result."""
    found: dict[str, list[float]] = defaultdict(list)
    for case in ElementTree.parse(result).iter("testcase"):
        file = case.attrib["classname"].replace(".", "/") + ".py"
        name = case.attrib["name"].partition("[")[0]
        found[f"{file}::{name}"].append(float(case.attrib["time"]))
    return found


def slow_among(seconds: dict[str, list[float]], wanted: float = SECONDS) -> list[str]:
    """Lines of the list, the slowest first; see the module's text."""
    left = sum(map(sum, seconds.values()))
    lines = []
    for name in sorted(seconds, key=lambda name: -sum(seconds[name])):
        if left <= wanted:
            break
        cases = seconds[name]
        stays = len(cases) > 1 and cases[0] <= QUICK
        left -= sum(cases[1:] if stays else cases)
        lines.append(f"{name} *" if stays else name)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    lines = slow_among(seconds_of(given.result), given.seconds)
    LIST.write_text(HEAD + "".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
    print(f"{len(lines)} test functions are slow: {LIST}")


if __name__ == "__main__":
    main()
