"""Watching torchao's own ``prepare_qat_pt2e`` and ``convert_pt2e`` while they run, unchanged.

torchao imports its functions by name, so each is watched in the module that calls it. A quantizer
is an object of the user's or of a vendor's: its methods are wrapped on a copy of it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from qatexplorer.flows.annotations import Annotation, annotations_of, sharing_groups
from qatexplorer.flows.pt2e_authors import Authors, annotate_noting
from qatexplorer.flows.pt2e_errors import quantizer_failed
from qatexplorer.flows.watching import Call, Watched, watching

_API = "torchao.quantization.pt2e.quantize_pt2e"
_PREPARE = "torchao.quantization.pt2e.prepare"

PREPARE_CALLS = (
    Watched(_API, "_fuse_conv_bn_qat", ("m",)),
    Watched(_API, "prepare", ("model",)),
    Watched(_PREPARE, "_maybe_insert_input_observers_for_node", ("node",)),
    Watched(_PREPARE, "_maybe_insert_output_observer_for_node", ("node",)),
    Watched(_PREPARE, "_insert_obs_or_fq", ("node", "obs_or_fq")),
)
CONVERT_CALLS = (
    Watched(_API, "_convert_to_reference_decomposed_fx", ("graph_module",)),
    Watched(_API, "_fold_conv_bn_qat", ("m",)),
)


@dataclass(frozen=True, slots=True)
class Pt2eInsertion:
    """One ``_insert_obs_or_fq``: fake quant ``site`` put after graph node ``node``, asked for by
    ``call`` for node ``reason``."""

    site: str
    node: str
    call: str
    reason: str


@dataclass
class Pt2eLog:
    """What one ``prepare_qat_pt2e`` did, in order.

    ``annotations`` and ``groups`` are as they were before anything was inserted; ``fused`` are the
    ids of nodes that fusing convolutions and batch norms made; ``reached`` the boundaries passed.
    """

    annotations: tuple[Annotation, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    fused: tuple[str, ...] = ()
    insertions: list[Pt2eInsertion] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)


class Pt2ePrepareWatch:
    """Turns the calls inside one ``prepare_qat_pt2e`` into boundaries and a :class:`Pt2eLog`.

    ``at(boundary, graph_module)`` is called at "transform", "annotate" and "fuse", with the model
    as it is then.
    """

    def __init__(self, at: Callable[[str, fx.GraphModule], None]) -> None:
        self.log = Pt2eLog()
        self._at = at
        self._authors: Authors = {}
        self._before: frozenset[str] = frozenset()
        self._cause: tuple[str, str] = ("", "")

    @contextmanager
    def open(self, quantizer: Any) -> Iterator[Any]:
        """Gives the quantizer to run ``prepare_qat_pt2e`` with, once: a copy of ``quantizer``."""
        watched = _own(quantizer)
        watched.annotate = self._noting_authors(watched.annotate)
        self._wrap(watched, "transform_for_annotation", self._on_transformed)
        self._wrap(watched, "annotate", lambda _model, _result: None)
        self._wrap(watched, "validate", self._on_validated)
        with watching(PREPARE_CALLS, self._report):
            yield watched

    def _wrap(self, quantizer: Any, name: str, after: Callable[[Any, Any], None]) -> None:
        original = getattr(quantizer, name)

        @functools.wraps(original)
        def call(model: Any) -> Any:
            try:
                result = original(model)
            except Exception as error:
                raise quantizer_failed(error, quantizer, name, model) from error
            after(model, result)
            return result

        setattr(quantizer, name, call)

    def _noting_authors(self, annotate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(annotate)
        def call(model: Any) -> Any:
            result, self._authors = annotate_noting(annotate, model)
            return result

        return call

    def _boundary(self, name: str, model: fx.GraphModule) -> None:
        self.log.reached.append(name)
        self._at(name, model)

    def _on_transformed(self, _model: Any, result: Any) -> None:
        self._boundary("transform", result)

    def _on_validated(self, model: Any, _result: Any) -> None:
        self.log.annotations = annotations_of(model, self._authors)
        self.log.groups = sharing_groups(model)
        self._boundary("annotate", model)

    def _report(self, call: Call) -> None:
        if call.name == "_fuse_conv_bn_qat":
            model = call.arguments["m"]
            ids = frozenset(node.name for node in model.graph.nodes)
            if call.phase == "before":
                self._before = ids
            else:
                self.log.fused = tuple(sorted(ids - self._before))
                self._boundary("fuse", model)
        elif call.name == "_insert_obs_or_fq":
            self._on_insertion(call)
        elif call.name != "prepare":
            node = call.arguments["node"]
            self._cause = (call.name, node.name) if call.phase == "before" else ("", "")

    def _on_insertion(self, call: Call) -> None:
        if call.phase == "after":
            asker, reason = self._cause
            node = call.arguments["node"].name
            chain = f"prepare → {asker}({reason}) → " if asker else ""
            text = f"{chain}_insert_obs_or_fq({node})"
            self.log.insertions.append(Pt2eInsertion(str(call.result.target), node, text, reason))


class Pt2eConvertWatch:
    """Calls ``at("convert", model)`` when ``convert_pt2e`` has made the reference model, before
    convolutions and batch norms are folded."""

    def __init__(self, at: Callable[[str, fx.GraphModule], None]) -> None:
        self._at = at

    def open(self) -> Any:
        """Context manager to run ``convert_pt2e`` in, once."""
        return watching(CONVERT_CALLS, self._report)

    def _report(self, call: Call) -> None:
        if call.name == "_convert_to_reference_decomposed_fx" and call.phase == "after":
            self._at("convert", call.result)


def _own(quantizer: Any) -> Any:
    """A copy, so that the user's quantizer stays as it is; itself where it cannot be copied."""
    try:
        return copy.deepcopy(quantizer)
    except Exception:
        return copy.copy(quantizer)
