"""What the qconfig editor shows: scopes of a rule, rules in force, what a change would do."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.views.qconfig.scopes import chosen_paths, matched_words, pattern_scope, scopes_of


def net() -> nn.Module:
    block = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
    return nn.Sequential(nn.Conv2d(1, 2, 3), block, nn.Flatten(), nn.Linear(32, 3)).train()


def session(**settings: str) -> qx.Session:
    return qx.Session(net(), torch.randn(2, 1, 6, 6), qconfig="onednn", **settings)


def test_a_selection_means_modules_of_the_float_stage_at_every_stage() -> None:
    walk = session(stubs="model")
    first = walk.snapshot
    walk.goto("insert")
    chosen = ["site:module.0.weight_fake_quant", "module:module.0", "module:module.3"]
    assert chosen_paths(chosen, walk.snapshot, first) == ("0", "3")
    assert chosen_paths(["node:x", "edge:a:b", "", "module:gone"], walk.snapshot, first) == ()
    assert chosen_paths(["module:quant"], walk.snapshot, first) == ()  # only that stage has it


def test_what_is_selected_may_be_meant_alone_or_with_all_of_its_type() -> None:
    first = session().snapshot
    assert scopes_of((), first) == []
    here, same = scopes_of(("0",), first)
    assert (here.kind, here.label, here.paths) == ("modules", "this module: 0", ("0",))
    assert same.label == "all of type Conv2d (2)"
    assert (same.kind, same.text, same.paths) == (
        "type",
        "torch.nn.modules.conv.Conv2d",
        ("0", "1.0"),
    )
    several = scopes_of(("0", "3"), first)
    assert [scope.label for scope in several] == [
        "these 2 modules",
        "all of type Conv2d (2)",
        "all of type Linear (1)",
    ]
    assert scopes_of(("",), first)[0].label == "this module: (model)"


def test_a_pattern_says_at_once_what_it_matches() -> None:
    first = session().snapshot
    assert pattern_scope(r"1\.\d", first).paths == ("1.0", "1.1", "1.2")
    assert matched_words(pattern_scope("nothing", first), first) == "matches no module"
    assert pattern_scope("", first).paths == ()
    with pytest.raises(re.error):
        pattern_scope("(", first)
    assert (
        matched_words(pattern_scope(".*", first), first) == "7 modules: 0, 1, 1.0, 1.1 and 3 more"
    )
    container = scopes_of(("1",), first)[0]
    assert matched_words(container, first) == "1 module, with 3 modules inside: 1"
