"""One row for each fake quant and observer module, counted by running the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from qatexplorer.flows import Role, flow_of
from qatexplorer.forward.calls import Call
from qatexplorer.forward.record import Recording
from qatexplorer.ledger.places import place_of_call
from qatexplorer.ledger.records import LedgerRow, TensorPlace
from qatexplorer.ledger.scales import ScaleAccount, account
from qatexplorer.quantizers.facts import (
    find_quantizers,
    flags_of,
    is_fake_quant,
    kind_of,
    observer_of,
    observer_runs,
    seen_data,
)

Origins = Mapping[str, tuple[str, str]]
"""Path of a fake quant -> (stage, torch call) that made it, where it is known."""


def make_rows(
    model: nn.Module, recording: Recording, fresh: Mapping[str, Tensor], origins: Origins
) -> tuple[LedgerRow, ...]:
    """A row for each fake quant object (all its names in one), and one for the observer in it.

    ``fresh`` are the scales that the example alone asks for, by path.
    """
    names: dict[int, list[str]] = {}
    sites = find_quantizers(model)
    for path, module in sites.items():
        names.setdefault(id(module), []).append(path)
    first = {paths[0]: sites[paths[0]] for paths in names.values()}
    aliases = {paths[0]: tuple(paths[1:]) for paths in names.values()}
    ran: dict[str, list[Call]] = {}
    for call in recording.quants:
        ran.setdefault(call.name, []).append(call)
    live = recording.on_data_path()
    modules = dict(model.named_modules(remove_duplicate=False))
    rows: list[LedgerRow] = []
    for path, module in first.items():
        calls = ran.get(path, [])
        scales = account(module, fresh.get(path))
        row = _site_row(path, module, modules, calls, recording, live, scales, origins)
        places = {p.label for p in row.tensors if not p.key.startswith("quant:")}
        others = tuple(sorted(places - {row.tensor.label}))
        rows.append(replace(row, shared_with=(*aliases[path], *others)))
        if observer_of(module) is not None:
            rows.append(_inner_row(rows[-1], module, recording))
    return tuple(rows)


def _site_row(
    path: str,
    module: nn.Module,
    modules: Mapping[str, nn.Module],
    calls: Sequence[Call],
    recording: Recording,
    live: set[int],
    scales: ScaleAccount,
    origins: Origins,
) -> LedgerRow:
    owner = path.rpartition(".")[0]
    owner_module = modules.get(owner)
    places = tuple(dict.fromkeys(place_of_call(call, recording) for call in calls))
    tensor = places[0] if places else TensorPlace()
    inner = recording.module_calls.get(f"{path}.activation_post_process", 0)
    ran = recording.module_calls.get(path, 0)
    flags = flags_of(module)
    mechanism = _mechanism(calls)
    stage, made_by = origins.get(path) or _guess_origin(path, modules[""])
    ghost_text = _ghost(owner, calls, recording, live)
    return LedgerRow(
        path=path,
        role="fake quant" if is_fake_quant(module) else "observer",
        kind=kind_of(path, owner_module, tensor.key.partition(":")[0]),
        class_name=type(module).__name__,
        stage=stage,
        call=made_by,
        mechanism=mechanism,
        calls_per_forward=ran,
        observer_runs=observer_runs(module, ran, inner, path in recording.observer_writes),
        owner=owner,
        owner_type=type(owner_module).__name__ if owner_module is not None else "",
        tensor=tensor,
        tensors=places,
        scale=scales.stored or scales.recomputed,
        recomputed_scale=scales.recomputed,
        scale_difference=scales.difference,
        cause=scales.cause,
        cause_text=scales.cause_text,
        fresh_scale=scales.fresh,
        fresh_difference=scales.fresh_difference,
        fresh_cause=scales.fresh_cause,
        ghost=bool(ghost_text),
        ghost_text=ghost_text,
        seen=seen_data(module),
        observer_enabled=flags.observer,
        fake_quant_enabled=flags.fake_quant,
        selection=f"site:{path}",
    )


def _inner_row(site: LedgerRow, module: nn.Module, recording: Recording) -> LedgerRow:
    observer = observer_of(module)
    path = f"{site.path}.activation_post_process"
    calls = recording.module_calls.get(path, 0)
    by_kernel = not calls and site.path in recording.observer_writes
    return replace(
        site,
        path=path,
        role="inner observer",
        class_name=type(observer).__name__,
        mechanism="forward" if calls else ("fused kernel" if by_kernel else "unused"),
        calls_per_forward=calls,
        owner=site.path,
        owner_type=site.class_name,
        part_of=site.path,
        shared_with=(),
        scale=site.recomputed_scale,
        scale_difference=None,
        cause="none",
        cause_text="",
        fake_quant_enabled=False,
    )


def _mechanism(calls: Sequence[Call]) -> str:
    ways = dict.fromkeys(call.mechanism for call in calls)
    return " + ".join(ways) if ways else "unused"


def _guess_origin(path: str, root: nn.Module) -> tuple[str, str]:
    """For a model that was prepared elsewhere: what torch's own flows do, by place."""
    role: Role = "weights" if "weight" in path.rpartition(".")[2] else "inserted"
    stage = flow_of(root).stage_with(role)
    return (stage.name, stage.call) if stage is not None else ("", "")


def _ghost(owner: str, calls: Sequence[Call], recording: Recording, live: set[int]) -> str:
    if not calls:
        if owner and not recording.module_calls.get(owner) and not _runs_inside(owner, recording):
            return f"{owner} did not run in the forward of the example input."
        return "Nothing calls it in the forward of the example input."
    if not any(call.index in live for call in calls):
        return "It runs, but the model's output does not depend on its result."
    return ""


def _runs_inside(owner: str, recording: Recording) -> bool:
    # A FloatFunctional is never called itself: its methods are.
    return any(call.scope == owner for call in recording.calls)
