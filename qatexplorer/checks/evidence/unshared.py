"""What gives each use of a module one of its own: code of the user's, and the session's edit."""

from __future__ import annotations

from torch.ao.quantization import QuantStub

from qatexplorer.checks.evidence.uses import Uses, called_names
from qatexplorer.checks.records import Fix
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.edits.plan import Edit, code_of, tried
from qatexplorer.flows.edits.sharing import slots_of
from qatexplorer.forward.graph import GraphNode
from qatexplorer.quantizers.types import FUNCTIONAL_CLASSES


def own_module(subject: Subject, used: Uses, path: str, node: GraphNode) -> str:
    """The code that makes a second module for the call ``node`` of the one at ``path``."""
    if len(list(slots_of(subject.base, used.modules[path]))) > 1:
        return unsharing(subject, path).code.splitlines()[-1]
    name, here = path.rpartition(".")[2], code_of(subject.base, path)
    parent = code_of(subject.base, path.rpartition(".")[0])
    module = used.modules[path]
    new = f"{type(module).__name__}()"
    if not isinstance(module, (*FUNCTIONAL_CLASSES, QuantStub)):
        held = next(module.parameters(), None) is not None
        memo = f", {{id(p): p for p in {here}.parameters()}}" if held else ""
        new = f"copy.deepcopy({here}{memo})"
    where = f" at {node.source}" if node.source else ""
    return f"{parent}.{name}_2 = {new}  # and call {name}_2{where}"


def unshared(subject: Subject, used: Uses, path: str) -> tuple[Fix, ...]:
    """The edit that gives each name a module of its own, if each name is called once."""
    module = used.modules[path]
    if len(list(slots_of(subject.base, module))) < 2:
        return ()
    names = subject.get(called_names)
    if any(names.get(name, 0) > 1 for name in used.names_of(path)):
        return ()
    edit = unsharing(subject, path)
    arguments = (("name", "unshare"), ("path", path))
    code = f'session.edit("unshare", {path!r})'
    return (Fix("Give each name a module of its own", "edit", arguments, code, edit.diff),)


def unsharing(subject: Subject, path: str) -> Edit:
    return tried(subject.base, (Edit("unshare", path),))[0]
