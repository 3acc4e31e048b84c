"""The walk of a session as a plain PyTorch script, which needs torch and NumPy only.

What cannot be written as code (a loss that lives in a notebook, say) is an argument of the script's
``run``, and its docstring says so.
"""

from __future__ import annotations

import re
import textwrap
from importlib.metadata import version

import torch

from qatexplorer._version import __version__
from qatexplorer.errors import InputError
from qatexplorer.flows.base import Flow
from qatexplorer.flows.eager import EagerFlow
from qatexplorer.flows.fx import FxFlow
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.takehome import parts
from qatexplorer.takehome.prepare_code import prepare_code
from qatexplorer.takehome.records import Walk
from qatexplorer.takehome.work_code import convert_code, work_code
from qatexplorer.takehome.writer import Writer, call, indented

_WIDTH = 96
_USE = (
    "Import run and give it the float model as the session was given it, and the data. With the "
    "same torch on the same kind of CPU the weights come out the same, bit for bit."
)
_SPEC = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def script_of(walk: Walk, model: str = "", data: str = "", *, loads: bool = False) -> str:
    """The script of ``walk``.

    Args:
        model, data: ``"package.module:factory"`` of the user's float model, and of its batches (a
            dict with ``"train"`` and ``"eval"``), for ``python script.py``. Without them the
            script is to be imported, and its ``run`` called.
        loads: it has a ``load`` that makes the int8 model of a folder again.

    Raises InputError for a flow that has no script, for what is no such name and, without
    ``loads``, for a run of several processes.
    """
    if not isinstance(walk.flow, (EagerFlow, FxFlow, Pt2eFlow)):
        raise InputError(
            f"the flow {walk.flow.name!r} cannot be written as a script.",
            fix="Use flow='eager', 'fx' or 'pt2e'.",
        )
    if isinstance(walk.flow, Pt2eFlow):
        loads = False  # oneDNN's packed weights are no data that a file could hold
    for spec in filter(None, (model, data)):
        if not _SPEC.fullmatch(spec):
            raise InputError(f"{spec!r} is not of the form 'package.module:factory'.")
    if walk.processes > 1 and not loads:
        raise InputError(
            f"the run was made by {walk.processes} processes, and a script trains in one: its "
            "weights would be others.",
            fix="Take these weights home with session.export(folder), or train in one process and "
            "write the script then.",
        )
    names = walk.flow.stage_names
    int8 = names.index(walk.reached) >= names.index(walk.flow.int8_stage)
    writer = Writer(walk)
    functions = [prepare_code(writer)]
    if int8 or loads:
        functions.append(convert_code(writer))
    functions.append(_run(writer, work_code(writer), int8))
    if loads:
        functions.append(_load(writer))
    body = [*writer.functions(), *(line for lines in functions for line in (*lines, "", ""))]
    head = [f'"""{_title(walk)}"""', "", "from __future__ import annotations", ""]
    whole = [*head, *writer.code.imports(), "", "", *body, *_main(model, data)]
    return "\n".join(whole).rstrip() + "\n"


def _run(writer: Writer, work: list[str], int8: bool) -> list[str]:
    """The lines of the function ``run``."""
    usual = ("example_inputs: Any", "train_batches: Any", "eval_batches: Any")
    more = (f"{name}: Any" for name in writer.arguments)
    head = call("def run", ["model: nn.Module", *usual, *more], " -> dict[str, nn.Module]:")
    doc = ["The whole walk; returns the models by name."]
    if writer.arguments:
        doc += ["", *(f"{name}: {what}." for name, what in writer.arguments.items())]
    lines = [f'"""{doc[0]}', *doc[1:], '"""'] if len(doc) > 1 else [f'"""{doc[0]}"""']
    known = parts.fingerprint(writer.walk.base)
    if not writer.walk.edits:
        print_ = writer.use(parts.fingerprint)
        lines.append(f'print("float model", {print_}(model), "(the session had {known})")')
    lines += call("model = prepare", ["model", "example_inputs", *writer.prepare_needs])
    result = ['return {"trained": model}']
    if int8:
        made = call("to_int8", ["model", *writer.convert_needs])[0]
        result = [f'return {{"trained": model, "int8": {made}}}']
    return [*head, *indented([*lines, *work, *result])]


def _load(writer: Writer) -> list[str]:
    """The lines of the function ``load``."""
    needs = dict.fromkeys((*writer.prepare_needs, *writer.convert_needs))
    arguments = ["model: nn.Module", "folder: str", *(f"{name}: Any" for name in needs)]
    made = call("prepare", ["model", "inputs", *writer.prepare_needs])[0]
    int8 = call("to_int8", ["prepared", *writer.convert_needs])[0]
    lines = [
        '"""The int8 model that was written to ``folder``. ``model`` is the float one, with any',
        'weights, and is changed. Nothing is unpickled."""',
        f"inputs = {writer.use(parts.read_inputs)}(folder)",
        f"prepared = {made}",
        f"{writer.use(parts.call)}(prepared.eval(), inputs)  # observers need a range",
        f"int8 = {int8}",
        f"int8.load_state_dict({writer.use(parts.read_state)}(folder))",
        "return int8",
    ]
    return [*call("def load", arguments, " -> nn.Module:"), *indented(lines)]


def _main(model: str, data: str) -> list[str]:
    if not (model and data):
        return []
    lines = ['if __name__ == "__main__":']
    for spec, name in ((model, "make_model"), (data, "make_data")):
        module, _, attribute = spec.partition(":")
        lines.append(f"    from {module} import {attribute} as {name}")
    return [
        *lines,
        "",
        "    data = make_data()",
        '    inputs, _ = next(iter(data["train"]))',
        '    run(make_model(), inputs, data["train"], data["eval"])',
    ]


def needed(flow: Flow) -> str:
    """The packages that a script of ``flow`` needs, in words."""
    if isinstance(flow, Pt2eFlow):
        return f"torch, torchao ({version('torchao')} here) and NumPy"
    return "torch and NumPy"


def _title(walk: Walk) -> str:
    lines = [
        f"{type(walk.base).__name__} in torch's {walk.flow.title}: qatexplorer {__version__}.",
        "",
        f"Written with torch {torch.__version__}; needs {needed(walk.flow)} only. {_USE}",
    ]
    if walk.processes > 1:
        more = f"The session trained in {walk.processes} processes, and run trains in one"
        lines += ["", f"{more}: its weights are others. load has those of the session."]
    if walk.handed_out:
        more = "The session had handed out its model (session.model): what was done to it by hand"
        lines += ["", f"{more}, if anything, is not in this script."]
    return "\n".join(part for line in lines for part in (textwrap.wrap(line, _WIDTH) or [""]))
