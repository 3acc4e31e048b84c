"""Large plain data for the page, made ready where it was computed.

A trait that holds a large list is copied, walked and turned into JSON on the kernel's loop each
time it changes, which for a model of a few thousand modules takes longer than making the list. A
:class:`Packed` value is JSON already: the loop hands its bytes to the page as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import traitlets


class Packed:
    """Plain data as UTF-8 JSON in ``data``. Reads like the list or dict it was made of."""

    def __init__(self, value: Any) -> None:
        self.data = _encoded(value)

    @property
    def value(self) -> Any:
        """The data, decoded anew each time."""
        return json.loads(self.data)

    def get(self, key: Any, default: Any = None) -> Any:
        """As of a dict."""
        return self.value.get(key, default)

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __eq__(self, other: object) -> bool:
        return self.data == other.data if isinstance(other, Packed) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def _encoded(value: Any) -> bytes:
    """Piece by piece: one call of the encoder for all would not let another thread run."""
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(k))}:{_items(v)}" for k, v in value.items()]
        return f"{{{','.join(parts)}}}".encode()
    return _items(value).encode()


def _items(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(json.dumps, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(str(k))}:{json.dumps(v)}' for k, v in value.items())}}}"
    return json.dumps(value)


class PackedTrait(traitlets.TraitType[Packed, Any]):
    """A synchronized trait whose value is :class:`Packed`; plain data is packed when it is set.

    The page gets a ``DataView`` with the JSON.
    """

    def __init__(self, empty: Any) -> None:
        super().__init__(default_value=Packed(empty))
        self.tag(sync=True, to_json=lambda packed, _widget: packed.data)

    def validate(self, _obj: Any, value: Any) -> Packed:
        return value if isinstance(value, Packed) else Packed(value)
