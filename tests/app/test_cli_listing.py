"""What `inspect` says where paths move: under a wrapper, and for modules that the stage made."""

from __future__ import annotations

import dataclasses
import json

from qatexplorer import Session, zoo
from qatexplorer.app.listing import as_json, as_text, type_before


def wrapped() -> Session:
    example = zoo.load("digits_mlp")
    session = Session(example.model, example.example_inputs, stubs="model")
    session.goto("insert")
    return session


def test_type_before_follows_the_origin_under_a_wrapper() -> None:
    session = wrapped()
    before, after = session.snapshots["float"], session.snapshot
    types = {module.path: type_before(module, before) for module in after.modules}
    assert after.by_path["module.embed"].qualified_type.startswith("torch.ao.nn.qat")
    assert types["module.embed"] == "Linear"
    assert types["quant"] is None
    assert "new: QuantStub" in as_text("mlp", before, after)


def test_observers_are_not_listed_as_modules() -> None:
    session = wrapped()
    text = as_text("mlp", session.snapshots["float"], session.snapshot)
    modules = text.split("\n\n")[1]
    assert "module.embed" in modules
    assert "weight_fake_quant" not in modules
    assert "activation_post_process" not in modules


def test_infinities_are_strings_in_json() -> None:
    session = wrapped()
    site = dataclasses.replace(session.snapshot.sites[0], min_val=(float("inf"),))
    snapshot = dataclasses.replace(session.snapshot, sites=(site,))
    reported = as_json("mlp", session.snapshots["float"], snapshot)
    assert json.loads(json.dumps(reported, allow_nan=False))["sites"][0]["min_val"] == ["inf"]
