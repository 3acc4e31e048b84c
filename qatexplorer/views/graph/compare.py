"""Two graphs side by side: what each has that the other lacks, and what stands for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qatexplorer.snapshot.diff import place_of
from qatexplorer.snapshot.records import FakeQuantSite, GraphNode, Snapshot

Key = tuple[object, ...]

_PORTS = ("placeholder", "output")


@dataclass(frozen=True)
class Side:
    """One of two graphs: a snapshot, its scene (of :func:`~.scene.build_scene`), and its name."""

    snapshot: Snapshot
    scene: Mapping[str, Any]
    title: str

    def place(self, path: str) -> str:
        """Where a module stands in the float model; its own path if it is new."""
        record = self.snapshot.by_path.get(path)
        return path if record is None else place_of(record)

    @cached_property
    def module_at(self) -> Mapping[str, str]:
        """Path of the module at each place; fake quants are no part of it."""
        sites = self.snapshot.site_by_path
        return {place_of(m): m.path for m in self.snapshot.modules if m.path not in sites}

    @cached_property
    def node_keys(self) -> Mapping[str, Key]:
        """What tells a node of the graph from others of any stage or flow, by its id."""
        graph = self.snapshot.graph
        counts: Counter[Key] = Counter()
        found: dict[str, Key] = {}
        for node in graph.nodes if graph is not None else ():
            key = self._key(node)
            if key[0] == "op":
                counts[key] += 1
                key = (*key, counts[key])
            found[node.id] = key
        return found

    def _key(self, node: GraphNode) -> Key:
        if node.op in _PORTS:
            return ("op", node.op)
        if node.path:
            return ("module", self.place(node.path))
        return ("op", node.label.rpartition(".")[2].strip("_"), self.place(node.scope))

    @cached_property
    def keys(self) -> Mapping[str, Key]:
        """Keys of all that is drawn, nodes and groups, by item id; not of synthetic groups."""
        groups = {
            group["id"]: ("module", self.place(group["path"]))
            for group in self.scene["groups"]
            if not group["synthetic"]
        }
        return {**{f"n:{id_}": key for id_, key in self.node_keys.items()}, **groups}

    @cached_property
    def identities(self) -> frozenset[str]:
        """Items that are an ``nn.Identity``: they compute nothing, on whichever side."""
        known = self.snapshot.by_path
        return frozenset(
            n["id"]
            for n in self.scene["nodes"]
            if n["path"] in known and known[n["path"]].type_name == "Identity"
        )

    @cached_property
    def site_keys(self) -> Mapping[str, Key]:
        """What tells a fake quant from others of any stage of its flow, by its path."""
        return {site.path: self._site_key(site) for site in self.snapshot.sites}

    def _site_key(self, site: FakeQuantSite) -> Key:
        if site.nodes:
            return ("node", site.kind, site.path)
        name = site.path.removeprefix(f"{site.owner}.") if site.owner else site.path
        return (site.kind, self.place(site.owner), name)


@dataclass(frozen=True)
class Comparison:
    """Two sides; ``sites`` pairs their fake quants by paths on the left and on the right, None for
    two stages of one flow."""

    left: Side
    right: Side
    sites: Sequence[tuple[str, str]] | None = None

    @cached_property
    def _pairs(self) -> Mapping[str, str]:
        """Path on the right by path on the left of the fake quants that both have."""
        if self.sites is None:
            there = {key: path for path, key in self.right.site_keys.items()}
            return {p: there[key] for p, key in self.left.site_keys.items() if key in there}
        return dict(reversed(self.sites))  # of several the first

    @cached_property
    def _matched_right(self) -> frozenset[str]:
        if self.sites is None:
            return frozenset(self._pairs.values())
        return frozenset(right for _, right in self.sites)

    def only(self, right: bool) -> tuple[list[str], list[str]]:
        """Items drawn, and fake quants, that this side has and the other lacks. What is an Identity
        on a side counts as not there: it computes nothing."""
        return self._only_right if right else self._only_left

    @cached_property
    def _only_left(self) -> tuple[list[str], list[str]]:
        return self._only_at(False)

    @cached_property
    def _only_right(self) -> tuple[list[str], list[str]]:
        return self._only_at(True)

    def _only_at(self, right: bool) -> tuple[list[str], list[str]]:
        here, there = (self.right, self.left) if right else (self.left, self.right)
        known = {key for item, key in there.keys.items() if item not in there.identities}
        items = [
            item
            for item, key in here.keys.items()
            if key not in known and item not in here.identities
        ]
        matched = self._matched_right if right else frozenset(self._pairs)
        sites = [
            site.path
            for site in here.snapshot.sites
            if matched.isdisjoint({site.path, *site.aliases})
        ]
        return items, sites

    def counterpart(self, selection: str, right: bool) -> str:
        """What ``selection`` of one side (``right``: of the right one) is on the other; ``""`` if
        that has nothing of the sort."""
        here, there = (self.right, self.left) if right else (self.left, self.right)
        kind, _, rest = selection.partition(":")
        if kind == "module":
            path = there.module_at.get(here.place(rest))
            return f"module:{path}" if path is not None else ""
        if kind == "site":
            site = here.snapshot.site_by_path.get(rest)
            if site is None:
                return ""
            pairs = {b: a for a, b in self._pairs.items()} if right else self._pairs
            found = next((pairs[p] for p in (site.path, rest, *site.aliases) if p in pairs), "")
            return f"site:{found}" if found else ""
        nodes = {key: id_ for id_, key in reversed(list(there.node_keys.items()))}
        ends = [nodes.get(here.node_keys.get(id_, ())) for id_ in rest.split(":")]
        if kind not in ("node", "edge") or None in ends:
            return ""
        if kind == "edge" and there.snapshot.graph is not None:
            edges = {(e.source, e.target) for e in there.snapshot.graph.edges}
            if tuple(ends) not in edges:
                return ""
        return ":".join([kind, *(end for end in ends if end is not None)])


def compared_picture(comparison: Comparison, right: bool, said: str = "") -> dict[str, Any]:
    """What the browser needs beside one of the two scenes.

    Returns:
        A JSON-able dict: ``caption`` (whose graph it is), ``only`` (item ids) and ``sites`` (paths
        of fake quants) that the other side lacks, ``sign`` they are marked with, ``lacks`` (what is
        said of them), and ``said`` (what the last selection met).
    """
    items, sites = comparison.only(right)
    here, there = (
        (comparison.right, comparison.left) if right else (comparison.left, comparison.right)
    )
    passed = {there.keys[item] for item in there.identities}
    lacks = f"only here, not at {there.title}"
    if any(here.keys[item] in passed for item in items):
        lacks = f"only here, gone or an Identity at {there.title}"
    return {
        "caption": here.title,
        "only": items,
        "sites": sites,
        "sign": "+" if right else "−",
        "lacks": lacks,
        "said": said,
    }


def not_there(selection: str, side: Side) -> str:
    """That one side has nothing for a selection."""
    name = selection.partition(":")[2] or "the model"
    return f"{name} is not at {side.title}"
