"""The fake quants of two flows on one model, matched by the tensor that they quantize."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qatexplorer.ledger.records import Ledger, LedgerRow, TensorPlace
from qatexplorer.snapshot.records import Snapshot


@dataclass(frozen=True)
class Match:
    """One tensor, and who quantizes it in each flow; None where nobody does.

    ``key`` and ``label`` as in :class:`TensorPlace`, with paths of the float model. ``why`` says
    why only one flow has it, ``""`` where both do.
    """

    key: str
    label: str
    eager: LedgerRow | None
    fx: LedgerRow | None
    why: str = ""


def match_sites(
    eager: Ledger,
    fx: Ledger,
    eager_snapshot: Snapshot | None = None,
    fx_snapshot: Snapshot | None = None,
) -> tuple[Match, ...]:
    """Every tensor that either flow quantizes, in the eager model's order and then FX's.

    The snapshots, if given, translate paths under a ``QuantWrapper`` back to the float model's. A
    fake quant that serves several tensors stands in each of their rows.
    """
    left = _by_tensor(eager, _origins(eager_snapshot))
    right = _by_tensor(fx, _origins(fx_snapshot))
    found = []
    for key in dict.fromkeys((*left, *right)):
        mine, other = left.get(key), right.get(key)
        # FX has no wrappers, so its label speaks of the model as the user wrote it.
        place = (other or mine or (TensorPlace(), None))[0]
        why = ""
        if mine is None and other is not None:
            why = _only_fx(key, other[1], eager, eager_snapshot)
        elif other is None and mine is not None:
            why = _only_eager(key, mine[1], fx)
        found.append(
            Match(key, place.label, mine[1] if mine else None, other[1] if other else None, why)
        )
    return tuple(found)


def match_flows(
    by_graph: bool, mine: Ledger, theirs: Ledger, snapshots: tuple[Snapshot, Snapshot]
) -> tuple[Match, ...]:
    """:func:`match_sites` of a ledger and that of the other flow; ``by_graph``: mine is FX's."""
    if by_graph:
        return match_sites(theirs, mine, *snapshots[::-1])
    return match_sites(mine, theirs, *snapshots)


def _origins(snapshot: Snapshot | None) -> Mapping[str, str]:
    if snapshot is None:
        return {}
    return {m.path: m.origin for m in snapshot.modules if m.origin and m.origin != m.path}


def _by_tensor(
    ledger: Ledger, origins: Mapping[str, str]
) -> dict[str, tuple[TensorPlace, LedgerRow]]:
    found: dict[str, tuple[TensorPlace, LedgerRow]] = {}
    for row in ledger.sites:
        for place in row.tensors or ():
            found.setdefault(_key(place, origins), (place, row))
    return found


def _key(place: TensorPlace, origins: Mapping[str, str]) -> str:
    kind, _, rest = place.key.partition(":")
    if kind == "module":
        path, _, port = rest.rpartition(":")
        return f"module:{origins.get(path, path)}:{port}"
    if kind == "param":
        module, _, name = rest.rpartition(".")
        module = origins.get(module, module)
        return f"param:{module}.{name}" if module else f"param:{name}"
    return place.key


def _only_fx(key: str, row: LedgerRow, eager: Ledger, snapshot: Snapshot | None) -> str:
    kind, _, rest = key.partition(":")
    if kind == "input":
        return "FX has put one after this input; in eager mode that takes a QuantStub."
    if kind == "op":
        name = rest.partition(":")[0]
        return f"{name} is a function or method: FX sees it, eager mode hooks modules only."
    path = rest.rpartition(":")[0] if kind == "module" else rest.rpartition(".")[0]
    reason = _float_reason(path, eager)
    if reason:
        return f"Float in eager mode: {reason}"
    if kind == "module":
        records = snapshot.modules if snapshot is not None else ()
        record = next((m for m in records if (m.origin or m.path) == path), None)
        name = record.type_name if record is not None else "this type"
        return f"prepare has put none on the output of {name}; FX has."
    return "FX has put one on this parameter; eager mode puts none on what functions use."


def _only_eager(key: str, row: LedgerRow, fx: Ledger) -> str:
    kind, _, rest = key.partition(":")
    path = rest.rpartition(":")[0] if kind == "module" else rest.rpartition(".")[0]
    reason = _float_reason(path, fx) if kind in ("module", "param") else ""
    if reason:
        return f"Float in FX: {reason}"
    if row.ghost:
        return "In eager mode it is in the model and did not run; FX has what was traced."
    if kind == "quant":
        return "A stub quantizes what is quantized already; FX has no stubs."
    if kind == "op":
        return "FX has put none on the result of this operation."
    if kind == "input":
        return "FX has put none on this input."
    return "FX has put none on the output of this module."


def _float_reason(path: str, ledger: Ledger) -> str:
    return next((row.sentence for row in ledger.floats if row.path == path and path), "")
