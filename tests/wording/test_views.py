"""What single views say in the cases that a walk through an example does not meet."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from syrupy.assertion import SnapshotAssertion

from qatexplorer.accuracy.records import Comparison
from qatexplorer.advice import advise
from qatexplorer.migration.make import migrate
from qatexplorer.migration.text import as_text
from qatexplorer.quantizers.engine_choice import Backend, EngineConcern
from qatexplorer.views.accuracy.compare_figures import (
    channels_figure,
    depth_figure,
    scatter_figure,
)
from qatexplorer.views.accuracy.compare_table import COLUMNS, compare_filters
from qatexplorer.views.accuracy.compare_words import cost_words, headline_html, place_html
from qatexplorer.views.accuracy.lost import lost_html
from qatexplorer.views.advice import advice_html
from qatexplorer.views.common.engines import concern_html, engines_html
from qatexplorer.views.inspector.int8_layer import int8_html
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.migration.page import sections, summary_html, worth_html
from tests.migration.nets import Deciding, Residual
from tests.support.advice import conv_pair, facts_of, small, values
from tests.support.comparisons import COMPARISON
from tests.support.engines import faked
from tests.support.int8_numbers import CASES
from tests.support.page_text import masked, visible_text
from tests.support.view_snapshots import walk


def test_engines_of_every_kind(wording: SnapshotAssertion) -> None:
    probes = (
        faked("onednn", full=63),
        faked("x86", full=63, half=20),
        faked("qnnpack"),
        faked("fbgemm"),
        faked("odd", error="RuntimeError: no kernel"),
    )
    best = Backend("qnnpack", "onednn", "The reason.")
    concerns = [
        EngineConcern("saturates", "The message.", "The fix."),
        EngineConcern("clamps", "The message.", "The fix."),
    ]
    parts = [engines_html(probes, "x86", best), *(concern_html(concern) for concern in concerns)]
    assert wording == "\n\n".join(masked(visible_text(part)) for part in parts) + "\n"


def test_advice(wording: SnapshotAssertion) -> None:
    known = {
        "much is lost": (conv_pair(64.0), values(float=0.9, ptq=0.5)),
        "nothing is lost": (conv_pair(1.0), values(float=0.9, ptq=0.895)),
        "nothing is known": (conv_pair(1.0), {}),
    }
    texts = []
    for name, (model, metrics) in known.items():
        session = small(model)
        made = advise(facts_of(session, metrics=metrics))
        texts.append(f"## {name}\n{visible_text(advice_html(made, session.snapshot))}\n\n{made}")
    assert wording == masked("\n\n".join(texts)) + "\n"


def test_a_comparison(wording: SnapshotAssertion) -> None:
    parts = {
        "headline": headline_html(COMPARISON),
        "of nothing": headline_html(Comparison()),
        "cost": cost_words(COMPARISON),
        "lost": lost_html(COMPARISON),
        "none lost": lost_html(Comparison(evaluated=3)),
        "nothing evaluated": lost_html(Comparison()),
        **{f"place {at}": place_html(row) for at, row in enumerate(COMPARISON.rows)},
    }
    texts = [f"## {name}\n{visible_text(html)}" for name, html in parts.items()]
    figures = [depth_figure(COMPARISON), scatter_figure(COMPARISON, 0), channels_figure(COMPARISON)]
    texts += [
        "\n".join([f"## {meta['title']}", meta["subtitle"], meta["alt"], *meta["table"]["head"]])
        for meta in [one.layout.meta for one in figures if one is not None]
    ]
    table = [f"{column['label']}: {column.get('tip', '')}" for column in COLUMNS]
    table += [one["label"] for one in compare_filters(COMPARISON)]
    texts.append("## table\n" + "\n".join(table))
    assert wording == masked("\n\n".join(texts)) + "\n"


def test_inspector_where_something_is_odd(wording: SnapshotAssertion) -> None:
    snapshots = dict(walk()[0])
    train = snapshots["train"]
    stem = train.module("stem")
    twice = replace(stem, hooks=stem.hooks * 2)
    odd = replace(
        train,
        modules=tuple(twice if module is stem else module for module in train.modules),
        sites=tuple(replace(s, quant_max=127) if s.kind == "output" else s for s in train.sites),
    )
    changed = {**snapshots, "train": odd}
    pages = {
        "nothing picked": (snapshots, "float", ""),
        "an unknown module": (snapshots, "float", "module:nope"),
        "gone": (snapshots, "convert", "site:fc.weight_fake_quant"),
        "not there yet": (snapshots, "float", "site:fc.weight_fake_quant"),
        "never ran": (snapshots, "train", "site:spare.weight_fake_quant"),
        "an edge without a fake quant": (snapshots, "swap", "edge:stem:blocks_0_conv"),
        "a hook that is registered twice, and a halved range": (
            changed,
            "train",
            "site:stem.activation_post_process",
        ),
    }
    texts = [f"## {name}\n{visible_text(inspect_html(*page))}" for name, page in pages.items()]
    assert wording == masked("\n\n".join(texts)) + "\n"


def test_int8_layers_of_every_kind(wording: SnapshotAssertion) -> None:
    texts = [f"## {name}\n{visible_text(int8_html(case))}" for name, case in CASES.items()]
    assert wording == masked("\n\n".join(texts)) + "\n"


def test_one_model_in_two_flows(wording: SnapshotAssertion) -> None:
    """As text and on the page: places that one flow has only, one that refuses, stubs."""
    torch.manual_seed(0)
    texts = []
    for model, x in ((Residual(), torch.randn(4, 3, 8, 8)), (Deciding(), torch.randn(2, 6))):
        found = migrate(model, x, flows=("eager", "fx"), qconfig="x86", int8=False)
        page = visible_text(str(summary_html(found)) + str(worth_html(found)))
        parts = [f"{part.title}\n{visible_text(str(part.body))}" for part in sections(found)]
        text = re.sub(" {3,}", "  ", as_text(found))  # as wide as the numbers are
        texts.append("\n\n".join((text, page, *parts)))
    assert wording == masked("\n\n----\n\n".join(texts)) + "\n"
