"""The quantizers of the PT2E flow that can be asked for by name, and what is taken for one.

A further one is a further line of :data:`QUANTIZERS`. torchao is imported when one is made.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qatexplorer.errors import InputError
from qatexplorer.flows.imported import imported

_SHIPPED = "torchao.quantization.pt2e.quantizer"
_METHODS = ("transform_for_annotation", "annotate", "validate")
DEFAULT = "x86"


@dataclass(frozen=True)
class Named:
    """A quantizer by name: ``title`` for the page, ``modules`` of which the first that is installed
    has it, and how it is made of that module."""

    title: str
    modules: tuple[str, ...]
    # Named unlike any of the modules: both stand in a script.
    make: Callable[[Any], Any]


def new_x86(m: Any) -> Any:
    config = m.get_default_x86_inductor_quantization_config(is_qat=True)
    return m.X86InductorQuantizer().set_global(config)


def new_arm(m: Any) -> Any:
    config = m.get_default_arm_inductor_quantization_config(is_qat=True)
    return m.ArmInductorQuantizer().set_global(config)


def new_xpu(m: Any) -> Any:
    config = m.get_default_xpu_inductor_quantization_config()
    return m.XPUInductorQuantizer().set_global(config)


def new_xnnpack(m: Any) -> Any:
    config = m.get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    return m.XNNPACKQuantizer().set_global(config)


def new_embedding(m: Any) -> Any:
    return m.EmbeddingQuantizer()


QUANTIZERS: Mapping[str, Named] = {
    "x86": Named(
        "X86Inductor: convolutions and linear layers on x86 CPUs",
        (f"{_SHIPPED}.x86_inductor_quantizer",),
        new_x86,
    ),
    "arm": Named("ArmInductor: ARM CPUs", (f"{_SHIPPED}.arm_inductor_quantizer",), new_arm),
    "xpu": Named("XPUInductor: Intel GPUs", (f"{_SHIPPED}.xpu_inductor_quantizer",), new_xpu),
    "embedding": Named(
        "Embedding: the weights of embeddings",
        (f"{_SHIPPED}.embedding_quantizer",),
        new_embedding,
    ),
    "xnnpack": Named(
        "XNNPACK: phones, by ExecuTorch",
        (
            "executorch.backends.xnnpack.quantizer.xnnpack_quantizer",
            "torchao.testing.pt2e._xnnpack_quantizer",
        ),
        new_xnnpack,
    ),
}


def check_quantizer(given: Any) -> Any:
    """``given``, a name of :data:`QUANTIZERS` or an object that annotates. Raises InputError."""
    if given is None or (isinstance(given, str) and given in QUANTIZERS):
        return given
    if isinstance(given, str):
        raise InputError(
            f"there is no quantizer {given!r}.",
            fix=f"Names are {', '.join(map(repr, QUANTIZERS))}; or pass the object itself.",
        )
    lacks = [name for name in _METHODS if not callable(getattr(given, name, None))]
    if isinstance(given, type) or lacks:
        what = "a class" if isinstance(given, type) else f"no method {', '.join(lacks)}"
        raise InputError(
            f"{given!r} is no quantizer of PT2E: it is {what}."
            if isinstance(given, type)
            else f"a {type(given).__name__} is no quantizer of PT2E: it has {what}.",
            why="prepare_qat_pt2e calls transform_for_annotation, annotate and validate of it.",
            fix="Pass an object of a class derived from torchao.quantization.pt2e.quantizer."
            "Quantizer, for example quantizer='x86'.",
        )
    return given


def make_quantizer(given: Any) -> Any:
    """The object: that given, or the one of that name (None: :data:`DEFAULT`), made anew."""
    name = DEFAULT if given is None else given
    if not isinstance(name, str):
        return given
    named = QUANTIZERS[name]
    missing: ImportError | None = None
    for module in named.modules:
        try:
            return named.make(imported(module))
        except ImportError as error:
            missing = error
    raise InputError(
        f"quantizer {name!r} is not installed here: {missing}.",
        fix="Use quantizer='x86', which comes with torchao.",
    ) from missing


def is_for_xnnpack(given: Any) -> bool:
    """Whether a quantizer, or one that it is composed of, rounds as XNNPACK computes: torchao's
    XNNPACKQuantizer, ExecuTorch's, or one derived of them."""
    if given is None or isinstance(given, str):
        return given == "xnnpack"
    if any(one.__name__ == "XNNPACKQuantizer" for one in type(given).__mro__):
        return True
    return any(map(is_for_xnnpack, getattr(given, "quantizers", ())))


def lowered_elsewhere(given: Any) -> str:
    """In a sentence, what lowers the models of a quantizer whose backend is none of inductor's;
    ``""`` for those of inductor."""
    if is_for_xnnpack(given):
        return (
            "This stage lowers to oneDNN's kernels for x86 CPUs. What XNNPACKQuantizer is for is "
            "lowered by ExecuTorch: to_edge_transform_and_lower(program, "
            "partitioner=[XnnpackPartitioner()]), which session.export('model.pte') calls."
        )
    if type(given).__module__.startswith("executorch."):
        return (
            "This stage lowers to oneDNN's kernels for x86 CPUs. What "
            f"{type(given).__name__} is for is lowered by the partitioner of its own backend in "
            "ExecuTorch, of the reference model of stage 'fold'."
        )
    return ""


def title_of(given: Any) -> str:
    """For a sentence: ``"X86Inductor"``, or the class of an object."""
    if given is None or isinstance(given, str):
        return QUANTIZERS[given or DEFAULT].title.partition(":")[0]
    return type(given).__name__


def leaving_float(quantizer: Any, paths: Iterable[str]) -> Any:
    """A copy of ``quantizer`` that leaves the modules at ``paths`` in float; itself for none.
    Raises InputError where it cannot (:func:`cannot_leave_float`)."""
    paths = tuple(paths)
    if not paths:
        return quantizer
    why = cannot_leave_float(quantizer)
    if why:
        raise InputError(
            f"{', '.join(paths)} cannot be left in float: {why}",
            fix="Use quantizer='x86' or 'arm', or leave the module out in your own annotate.",
        )
    chosen = copy.deepcopy(quantizer)
    for path in paths:
        leave_out(chosen, path)
    return chosen


def leave_out(quantizer: Any, path: str) -> None:
    """Have a quantizer leave the module at ``path`` in float, convolutions with batch norms too."""
    quantizer.set_module_name_qconfig(path, None)
    quantizer.annotate = types.MethodType(with_empty_specs, quantizer)


def with_empty_specs(quantizer: Any, model: Any) -> Any:
    """What ``quantizer.annotate`` writes, and for each input of a convolution that it leaves out
    that there is no spec: of one with a batch norm ``prepare_qat_pt2e`` of torchao 0.18 takes the
    first two, and raises IndexError where there are none."""
    model = type(quantizer).annotate(quantizer, model)
    for node in model.graph.nodes:
        written = node.meta.get("quantization_annotation")
        with_norm = any("batch_norm" in str(user.target) for user in node.users)
        if with_norm and written is not None and not written.input_qspec_map:
            written.input_qspec_map = dict.fromkeys(node.all_input_nodes[:3])
    return model


def cannot_leave_float(quantizer: Any) -> str:
    """Why a quantizer cannot leave one module in float, in a sentence; ``""`` where it can."""
    if callable(getattr(quantizer, "set_module_name_qconfig", None)):
        return ""
    kind = type(quantizer).__name__
    return f"{kind} has no set_module_name_qconfig, by which X86InductorQuantizer leaves one out."


def name_of(given: Any) -> str:
    """For people and for a run's settings: the name, or the class of an object."""
    if given is None or isinstance(given, str):
        return given or DEFAULT
    return f"{type(given).__module__}.{type(given).__qualname__}"
