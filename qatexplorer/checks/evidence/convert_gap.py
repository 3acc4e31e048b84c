"""A prepared model of torchao's beside the one that convert makes of it, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from qatexplorer.checks.evidence.exported import operation_name, prepared_graph
from qatexplorer.checks.evidence.prepared import prepared_model
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.data import call_model, cloned, device_of, on_device
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.flows.torchao import fake_quants_of_weights
from qatexplorer.forward.exported import stack_of
from qatexplorer.forward.graph_module import positional_inputs
from qatexplorer.forward.noise import sqnr
from qatexplorer.forward.preserve import preserved_rng, preserved_state
from qatexplorer.forward.trace import tensors_in
from qatexplorer.quantizers.facts import observers_paused
from qatexplorer.quantizers.types import is_torchao_tensor


@dataclass(frozen=True)
class LayerGap:
    """SQNR in dB of one operation's result (or a layer's weight) after convert, against that
    before it. ``name`` says what it is the result of."""

    node: str
    name: str
    path: str
    decibels: float


@dataclass(frozen=True)
class ConvertGap:
    """``layers`` in the order of the forward; ``output`` is the SQNR of what the model returns.

    ``own``: of the model being worked on, and not of one that has seen the example input only.
    """

    layers: tuple[LayerGap, ...]
    output: float
    own: bool


def convert_gap(subject: Subject) -> ConvertGap:
    """The prepared model beside the converted one"""
    if not subject.base.training:
        raise NoEvidence("The model is in eval mode, and is not prepared so.")
    return _of_layers(subject) if subject.flow.kind() == "layers" else _of_graph(subject)


def _of_graph(subject: Subject) -> ConvertGap:
    """In PT2E: the results of the operations that both graphs have."""
    stage = subject.stage_of("reference")
    work, own = subject.get(prepared_graph), subject.observed
    hidden = before_norms(work)
    if hidden and not (own or subject.thorough):
        raise NoEvidence(
            "To fold batch norms takes torchao long: asked of a model that has been trained, and "
            "where the check is thorough."
        )
    candidate = copy_sharing_parameters(work)
    assert isinstance(candidate, fx.GraphModule)
    inputs = subject.options.example_inputs
    with preserved_rng():
        if not own:
            run_recorded(candidate.eval(), inputs)  # whose observers have seen nothing yet
        candidate.eval()
        with observers_paused(candidate):
            before, returned = run_recorded(candidate, inputs)
        after_model = subject.maker.convert_copy(candidate, stage).result.model
        assert isinstance(after_model, fx.GraphModule)
        after, given = run_recorded(after_model, inputs)
    layers = tuple(
        LayerGap(name, operation_name(node), _path(node), sqnr(before[name], after[name]))
        for name, node in _nodes(work).items()
        if name in before and name in after and name not in hidden and _same(before, after, name)
    )
    return ConvertGap(layers, _output(returned, given), own)


@torch.no_grad()
def _of_layers(subject: Subject) -> ConvertGap:
    """In torchao's QAT: the weights as they are rounded in training and as they are stored."""
    work = subject.get(prepared_model)
    inputs = cloned(on_device(subject.options.example_inputs, device_of(work)))
    with preserved_rng():
        built = subject.maker.convert_copy(copy_sharing_parameters(work))
        int8 = built.result.model.eval()
        given = call_model(int8, cloned(inputs))
        with preserved_state(work):
            returned = call_model(work.eval(), inputs)
    layers = []
    for path, layer, site in fake_quants_of_weights(work):
        stored: Any = int8.get_submodule(path).weight
        after = stored.dequantize() if is_torchao_tensor(stored) else stored
        before = site(layer.weight)
        layers.append(LayerGap(path, "the weight", path, sqnr(before, after)))
    return ConvertGap(tuple(layers), _output(returned, given), own=True)


class _Recorder(fx.Interpreter):
    """Keeps what each operation gives, as floats."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        floats = isinstance(value, Tensor) and value.is_floating_point()
        if floats and n.op == "call_function":
            self.seen[n.name] = value.detach().clone()
        return value


@torch.no_grad()
def run_recorded(model: fx.GraphModule, inputs: Any) -> tuple[dict[str, Tensor], Any]:
    """One forward of an exported model: the result of each of its operations by node, and what it
    returns. It runs as a call of the model would, and writes to what that would write to."""
    recorder = _Recorder(model)
    args = positional_inputs(model, cloned(on_device(inputs, device_of(model))))
    returned = recorder.run(*args)
    return recorder.seen, returned


def before_norms(model: fx.GraphModule) -> frozenset[str]:
    """Operations between a convolution and the batch norm behind it: convert folds them away, and
    computes something else at the convolution on purpose."""
    found: set[str] = set()
    for node in model.graph.nodes:
        at = node.all_input_nodes[0] if operation_name(node) == "batch_norm" else None
        while at is not None and at.op == "call_function" and len(at.users) == 1:
            found.add(at.name)
            if operation_name(at).startswith("conv"):
                break
            at = at.all_input_nodes[0] if at.all_input_nodes else None
    return frozenset(found)


def _nodes(model: fx.GraphModule) -> dict[str, fx.Node]:
    return {node.name: node for node in model.graph.nodes if node.op == "call_function"}


def _path(node: fx.Node) -> str:
    return next((path for path, _ in reversed(stack_of(node))), "")


def _same(before: dict[str, Tensor], after: dict[str, Tensor], name: str) -> bool:
    return before[name].shape == after[name].shape


def _output(returned: Any, given: Any) -> float:
    """The smallest SQNR of the floating-point tensors that both return."""
    pairs = zip(tensors_in(returned), tensors_in(given), strict=True)
    return min(
        (sqnr(one, two) for one, two in pairs if one.is_floating_point()), default=float("inf")
    )
