"""What torch.export, a quantizer and torchao's lowering raise, reported with the user's place."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from torch import fx, nn

from qatexplorer.errors import QatExplorerError, StageError, TraceFailedError
from qatexplorer.explain.blame import place_of
from qatexplorer.forward.exported import calls_of, stack_of
from qatexplorer.forward.graph_module import source_of


def first_line(error: BaseException) -> str:
    """``"TypeName: message"`` in one line of at most 200 characters of message."""
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def export_failed(error: Exception, model: nn.Module) -> QatExplorerError:
    """torch.export cannot follow ``model``; ``where`` is the module whose forward was running."""
    place = place_of(error, model)
    kind = place.type_name or type(model).__name__
    line = f" at {place.source.rpartition('/')[2]}" if place.source else ""
    return TraceFailedError(
        f"torch.export cannot export {kind}.forward{line}: {first_line(error)}",
        where=place.path or "",
        why="Exporting runs forward with stand-ins that have shapes and no values, so it cannot "
        "follow if, for and Python functions that depend on what is in a tensor.",
        fix="Write that line without looking at values of tensors, or use flow='eager', which runs "
        "forward as it is.",
    )


def quantizer_failed(
    error: Exception, quantizer: Any, method: str, model: fx.GraphModule
) -> QatExplorerError:
    """A quantizer raised in ``method``; ``where`` is the module of the node it was at."""
    name = type(quantizer).__name__
    node = _node_at(error, model)
    where, at = None, ""
    if node is not None:
        stack, source = stack_of(node), source_of(node)
        where = stack[-1][0] if stack else ""
        line = f", which {source} made" if source else ""
        at = f" at node {node.name} ({node.target}){line}"
    why = (
        f"A quantizer is a program of its own, and this is what {name} asserts of the graphs that "
        "it takes. Nothing has been inserted yet; the exported model runs as before."
    )
    if "more than one output node" in str(error):
        twice = [path for path, calls in calls_of(model).items() if calls > 1 and path]
        why += " torchao takes all calls of one module for one place in a pattern, and a module "
        why += "that is called more than once has as many outputs"
        why += f": {', '.join(twice[:5])}." if twice else "."
        fix = "Give each call a module of its own, or use another quantizer: quantizer='xnnpack'."
    elif type(quantizer).__module__.startswith("torchao."):
        fix = "Use another quantizer, for example quantizer='xnnpack', or flow='fx'."
    else:
        fix = (
            "Leave quantizer=None, torchao's X86InductorQuantizer, to see whether the model goes "
            "through; a quantizer of a vendor must fit this release of torchao."
        )
    message = f"{name}.{method} failed{at}: {first_line(error)}"
    return StageError(message, where=where, why=why, fix=fix)


def _node_at(error: BaseException, model: fx.GraphModule) -> fx.Node | None:
    """The node that the innermost function with one in its hands was at."""
    known = set(model.graph.nodes)
    found = None
    step: TracebackType | None = error.__traceback__
    while step is not None:
        nodes = list(_nodes_in(step.tb_frame.f_locals, known))
        found = nodes[-1] if nodes else found
        step = step.tb_next
    return found


def _nodes_in(values: dict[str, Any], known: set[fx.Node]) -> Iterator[fx.Node]:
    """What is called a node last, as that is what a loop goes over."""
    named = sorted(values.items(), key=lambda item: item[0] in ("node", "n"))
    for _, value in named:
        if isinstance(value, fx.Node) and value in known:
            yield value


def lowering_failed(error: Exception) -> QatExplorerError:
    """Torchao's lowering raised: the reference model stays."""
    names = {type(one).__name__ for one in _chain(error)}
    if names & {"InvalidCxxCompiler", "CppCompileError"}:
        return StageError(
            "Lowering needs a C++ compiler, and inductor finds none that works: "
            f"{first_line(error)}",
            why="Inductor, which lowers the model, compiles C++. The reference model of stage "
            "'fold' computes the same numbers with float kernels and stays usable.",
            fix="Install g++ (apt-get install g++), or name a compiler in the variable CXX; or "
            "stay at stage 'fold'.",
        )
    return StageError(
        f"torchao's lowering failed: {first_line(error)}",
        why="The reference model of stage 'fold' computes the same numbers with float kernels and "
        "stays usable.",
        fix="Stay at stage 'fold', or lower that model with your own backend.",
    )


def lowered_does_not_run(error: Exception, elsewhere: str) -> QatExplorerError:
    """The lowered model raised for the example inputs. ``elsewhere``: what else lowers it."""
    return StageError(
        f"what lower_pt2e_quantized_to_x86 gave does not run: {first_line(error)}",
        why="OneDNN's convolutions take activations of uint8, as torchao's quantizers for CPUs "
        f"round them. {elsewhere or 'Yours may round them to int8.'}",
        fix="Stay at stage 'fold': the reference model computes the same numbers with float "
        "kernels. session.export('model.pte') writes the one that XNNPACK runs."
        if "session.export" in elsewhere
        else "Stay at stage 'fold', or use quantizer='x86'.",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
