"""Where the fake quants of a prepared model stand, and that model without some of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import fx, nn

from qatexplorer.quantizers.facts import find_quantizers, flags_of, is_fake_quant, switch

Place = tuple[str, str, int]
"""``("module", path, 0)`` of one that a module holds, ``("node", name, n)`` of one that is a node
of an FX graph: behind which node it stands, and after how many others."""


def places_of(model: nn.Module) -> dict[Place, str]:
    """The path of the fake quant at each place.

    Places are the same in all models that torch prepares from one float model, whatever their
    qconfigs; the paths are not: FX numbers fake quants in the order in which it puts them in.
    """
    found = {path for path, module in find_quantizers(model).items() if is_fake_quant(module)}
    places: dict[Place, str] = {}
    nodes = model.graph.nodes if isinstance(model, fx.GraphModule) else ()
    as_nodes: set[str] = set()
    for node in nodes:
        if _stands_at(node, found):
            source, behind = node.all_input_nodes[0], 0
            while _stands_at(source, found):
                source, behind = source.all_input_nodes[0], behind + 1
            places["node", source.name, behind] = str(node.target)
            as_nodes.add(str(node.target))
    for path in sorted(found - as_nodes):
        places["module", path, 0] = path
    return places


def _stands_at(node: fx.Node, found: Collection[str]) -> bool:
    return node.op == "call_module" and str(node.target) in found and bool(node.all_input_nodes)


@contextmanager
def without(model: nn.Module, gone: Collection[Place]) -> Iterator[nn.Module]:
    """``model`` (or one that shares its modules) with no fake quant rounding at these places.

    One that stands at others too is taken out there only, as far as it is a node of a graph. Flags
    are put back at exit.
    """
    named = dict(model.named_modules(remove_duplicate=False))
    at: dict[int, list[Place]] = {}
    quantizers: dict[int, nn.Module] = {}
    for place, path in places_of(model).items():
        at.setdefault(id(named[path]), []).append(place)
        quantizers[id(named[path])] = named[path]
    off = [q for i, q in quantizers.items() if all(p in gone for p in at[i])]
    partly = {p for i, q in quantizers.items() if q not in off for p in at[i] if p in gone}
    on = [q for q in off if flags_of(q).fake_quant]
    try:
        for quantizer in on:
            switch(quantizer, fake_quant=False)
        yield _cut_out(model, partly) if partly and isinstance(model, fx.GraphModule) else model
    finally:
        for quantizer in on:
            switch(quantizer, fake_quant=True)


def _cut_out(model: fx.GraphModule, gone: Collection[Place]) -> fx.GraphModule:
    """A graph without the nodes at these places, on the same modules."""
    at = {p: place for place, p in places_of(model).items()}
    wanted = {path for path, place in at.items() if place in gone}
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(model.graph, values)
    graph.output(output)
    for old, new in values.items():
        if old.op == "call_module" and str(old.target) in wanted:
            new.replace_all_uses_with(new.all_input_nodes[0])
            graph.erase_node(new)
    cut = fx.GraphModule(model, graph)
    cut.train(model.training)
    return cut
