"""The table of engines and what is wrong with one, as HTML."""

from __future__ import annotations

from qatexplorer.evaluate.evaluation import Evaluation, ModelResult
from qatexplorer.quantizers.engine_choice import Backend, EngineConcern
from qatexplorer.views.common.engines import concern_html, engines_html
from qatexplorer.views.common.results import results_html
from tests.support.engines import faked


def test_each_engine_has_a_row_that_says_what_it_computes() -> None:
    probes = [
        faked("onednn", full=63),
        faked("x86", full=63),
        faked("qnnpack"),
        faked("odd", error="RuntimeError: <no kernel>"),
    ]
    best = Backend("qnnpack", "onednn", "Because <it> is right.")
    html = engines_html(probes, "x86", best)
    onednn, x86, qnnpack, odd = (row.split("</tr>")[0] for row in html.split("<tr")[2:])
    assert "63" in onednn
    assert "63" not in qnnpack
    assert 'aria-current="true"' in x86
    assert "0..127" in x86
    assert qnnpack.count("<td>right</td>") == 2
    assert "&lt;no kernel&gt;" in odd
    assert "Because &lt;it&gt; is right." in html
    assert html.count('aria-current="true"') == 1


def test_a_concern_is_marked_and_escaped() -> None:
    assert concern_html(None) == ""
    loud = concern_html(EngineConcern("saturates", "It <saturates>.", "Do that."))
    assert "⚠ It &lt;saturates&gt;." in loud
    assert "Do that." in loud
    assert "△" in concern_html(EngineConcern("clamps", "It clamps.", "Do that."))


def test_a_warning_stands_in_the_row_of_its_model_on_the_page_and_in_text() -> None:
    evaluation = Evaluation(
        {
            "float": ModelResult("float"),
            "int8": ModelResult("int8", note="of a copy", warning="It <saturates>."),
        }
    )
    first, int8 = results_html(evaluation).split("<tr")[2:]
    assert "saturates" not in first
    assert "⚠ It &lt;saturates&gt;." in int8
    assert "of a copy" in int8
    assert repr(evaluation).splitlines()[-1].endswith("of a copy It <saturates>.")
