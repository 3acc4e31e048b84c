"""Running the script of a session, and comparing what it makes with what the session has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import qatexplorer as qx
from tests.support.training_models import same


def run_here(text: str, *arguments: Any, **keywords: Any) -> dict[str, nn.Module]:
    """What the script's ``run`` returns, in this process; the engine stays what it was."""
    engine = torch.backends.quantized.engine
    there: dict[str, Any] = {"__name__": "script"}
    exec(compile(text, "script.py", "exec"), there)
    try:
        found: dict[str, nn.Module] = there["run"](*arguments, **keywords)
        return found
    finally:
        torch.backends.quantized.engine = engine


def assert_the_same(
    session: qx.Session, text: str, make: Callable[[], nn.Module], given: Any = None, **more: Any
) -> None:
    """Runs the script on a new model and compares trained state and int8 output with the session's.

    ``given`` is the data, new for the script where its state matters.
    """
    inputs = session.options.example_inputs
    train, evaluation = given or (session.data.train, session.data.eval)  # type: ignore[union-attr]
    made = run_here(text, make(), inputs, train, evaluation, **more)
    trained = session.copy_model(session.flow.train_stage)
    assert same(trained.state_dict(), made["trained"].state_dict())
    if session.reached == session.flow.int8_stage:
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        assert torch.equal(session.int8(*args), made["int8"](*args))
