"""The section of an int8 layer: what it shows is in the record, well-formed and escaped."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from qatexplorer.accuracy.int8_record import WeightNumbers
from qatexplorer.views.inspector.int8_layer import (
    MOST_CELLS,
    MOST_PRODUCTS,
    Int8Section,
    int8_html,
)
from tests.support.html_checker import Checker
from tests.support.int8_numbers import CASES, LINEAR
from tests.support.page_text import visible_text


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_well_formed_and_escaped(case: str) -> None:
    html = int8_html(CASES[case])
    found = Checker(re.sub(r"<input[^>]*>", "", html))
    assert found.tags[0] == "section"
    assert "None" not in found.text
    assert "<b>" not in html.replace("<b>10", "").replace("<b>41", "")


def test_fields_hold_the_output_and_its_bounds() -> None:
    html = int8_html(CASES["a convolution"])
    fields = re.findall(
        r'<input type="number" value="(\d+)" min="0" max="(\d+)".*?ask="(.*?)"', html
    )
    assert fields == [
        ("0", "1", "int8:call"),
        ("1", "1", "int8:sample"),
        ("0", "0", "int8:output:0"),
        ("2", "3", "int8:output:1"),
    ]
    assert re.findall(r"<label><span>(.*?)</span>", html) == [
        "call",
        "sample",
        "channel",
        "position",
    ]


def test_products_and_maps_are_those_of_the_window() -> None:
    text = visible_text(int8_html(CASES["a convolution"]))
    assert "| 7 | 4 | 127 | 508" in text
    assert "1 of the 3 input codes are padding" in text
    assert "Products (3)" in text
    assert "Channels (2)" in text


def test_of_a_large_layer_the_first_are_drawn_and_the_rest_is_counted() -> None:
    assert LINEAR.worked is not None
    many = tuple(range(-100, 100)) * 20
    worked = replace(LINEAR.worked, input_codes=tuple(c + 100 for c in many), weight_codes=many)
    weight = WeightNumbers(np.zeros((2, 4000), dtype=np.int8), (0.5, 0.25), (0, 0), True)
    large = replace(LINEAR, kind="Linear", worked=worked, weight=weight)
    html = int8_html(Int8Section(large, 2, (1, 4)))
    text = visible_text(html)
    assert f"The first {MOST_PRODUCTS} of 4,000 products." in text
    assert f"The first {MOST_CELLS:,} of 4,000 codes." in text
    assert html.count("--qx-part:") == 2 * MOST_CELLS
    # Codes below the middle are another colour than those above, and the sign is written.
    assert re.search(r'qx-below" style="--qx-part:78%">-100<', html)
    assert re.search(r'qx-above" style="--qx-part:77%">99<', html)


def test_what_is_copied_is_the_record_s_own() -> None:
    html = int8_html(CASES["a convolution"])
    copied = re.findall(r'data-copy="([^"]*)"', html)
    assert len(copied) == 2
    assert copied[0].startswith("fc: Conv1d with ReLU in int8")
    assert "input_codes = np.array([" in copied[1]
