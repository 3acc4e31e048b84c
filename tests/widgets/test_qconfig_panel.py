"""The panel "qconfig": scope, fields, preview, apply, undo and redo, save and load."""

from __future__ import annotations

import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.widgets.qconfig.scope import ScopeFields


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten()).train()


def session() -> qx.Session:
    return qx.Session(net(), torch.randn(8, 1, 8, 8), qconfig="onednn", stubs="model")


def test_the_scope_follows_the_selection() -> None:
    changes: list[bool] = []
    fields = ScopeFields(lambda: changes.append(True))
    fields.use(session())
    assert fields.scope is None
    assert "Select modules" in fields.words.html
    fields.follow(["module:0"])
    assert fields.scope is not None
    assert fields.scope.paths == ("0",)
    fields.choice.value = next(key for _, key in fields.choice.options if "Conv2d" in key)
    assert fields.scope.paths == ("0", "2")
    assert "2 modules: 0, 2" in fields.words.html
    fields.follow(["module:2"])  # the kind of scope stays what was chosen
    assert fields.scope.paths == ("0", "2")
    fields.follow(["module:1"])
    assert fields.scope.paths == ("1",)
    fields.follow([])
    assert fields.scope is None
    assert len(changes) == 4


def test_a_pattern_counts_what_it_matches_while_it_is_written() -> None:
    fields = ScopeFields(lambda: None)
    fields.use(session())
    fields.choice.value = "pattern"
    for written, said, paths in (
        ("[02]", "2 modules: 0, 2", ("0", "2")),
        ("9", "matches no module", None),
        ("(", "This is no regular expression", None),
        ("<b>", "matches no module", None),
    ):
        fields.pattern.value = written
        assert said in fields.words.html
        assert (fields.scope.paths if fields.scope else None) == paths
    fields.pattern.value = "0"
    fields.follow(["module:2"])  # what is being written stays
    assert fields.scope is not None
    assert fields.scope.paths == ("0",)
