"""The samples that float gets right and int8 does not, images as images."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qatexplorer.accuracy.records import Comparison, Lost
from qatexplorer.views.accuracy.compare_table import in_form
from qatexplorer.views.common.html import Html, tag
from qatexplorer.views.common.names import number, shape_text

MAX_SIDE = 112
MAX_CARDS = 24
_LEAST_SIDE = 4
_MOST_NUMBERS = 12
_MOST_PARTS = 4


def lost_html(comparison: Comparison) -> Html:
    """A card for each lost sample: its input, its target, and what float and int8 answer."""
    if not comparison.evaluated:
        return tag("p", "No samples of the evaluation data were compared.", class_="qx-muted")
    wrong = in_form(comparison.form)
    if not comparison.lost_total:
        of = f"{comparison.evaluated:,} evaluation samples"
        return tag("p", f"None of {of} is right in float and wrong {wrong}.")
    shown = min(len(comparison.lost), MAX_CARDS)
    part = f" The first {shown:,} are shown." if shown < comparison.lost_total else ""
    head = (
        f"{comparison.lost_total:,} of {comparison.evaluated:,} evaluation samples: "
        f"right in float, wrong {wrong}.{part}"
    )
    cards = [_card(one, comparison.form) for one in comparison.lost[:shown]]
    return tag("div", tag("p", head), tag("ul", *cards, class_="qx-lost"))


def _card(one: Lost, form: str) -> Html:
    answers = tag(
        "dl",
        tag("div", tag("dt", "target"), tag("dd", f"{one.target}")),
        tag("div", tag("dt", "float"), tag("dd", f"✓ {one.float_answer}")),
        tag("div", tag("dt", form), tag("dd", f"✗ {one.int8_answer}"), class_="qx-is-wrong"),
    )
    number_of = tag("h4", f"sample {one.number:,}")
    picture = tag("div", *_parts(one.input, one.number), class_="qx-lost-input")
    return tag("li", number_of, tag("div", picture, answers, class_="qx-lost-body"))


def _parts(given: Any, sample: int) -> list[Html]:
    if given is None:
        return [tag("small", "its input cannot be taken out of the batch")]
    if isinstance(given, Mapping):
        parts = [(f"{name}: ", value) for name, value in given.items()]
    elif isinstance(given, (tuple, list)):
        parts = [(f"{at}: ", value) for at, value in enumerate(given)]
    else:
        parts = [("", given)]
    found = [_part(name, value, sample) for name, value in parts[:_MOST_PARTS]]
    more = len(parts) - _MOST_PARTS
    return [*found, *([tag("small", f"and {more} more inputs")] if more > 0 else [])]


def _part(name: str, value: Any, sample: int) -> Html:
    array = np.asarray(value)
    if array.dtype.kind not in "buif":
        return tag("small", f"{name}{type(value).__name__}")
    image = image_of(array)
    if image is None:
        return tag("small", name, _numbers(array))
    shape = shape_text(array.shape)
    low, high = _ends(array)
    said = f"{name}{shape}, {number(low)} dark to {number(high)} bright"
    return tag(
        "figure",
        tag("img", src=png_uri(image), alt=f"Input of sample {sample:,}", width="72"),
        tag("figcaption", said),
    )


def _numbers(array: NDArray[Any]) -> str:
    flat = array.reshape(-1)
    shown = ", ".join(number(float(v)) for v in flat[:_MOST_NUMBERS])
    more = ", …" if flat.size > _MOST_NUMBERS else ""
    return f"{shape_text(array.shape)}: {shown}{more}"


def _ends(array: NDArray[Any]) -> tuple[float, float]:
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)


def image_of(array: NDArray[Any]) -> NDArray[np.uint8] | None:
    """An array of (H, W), (1, H, W) or (3, H, W) as bytes of (H, W) or (H, W, 3), at least 4 and at
    most 112 a side; the lowest value is 0, the highest 255. None for other arrays."""
    if array.ndim == 3 and array.shape[0] in (1, 3):
        planes = array
    elif array.ndim == 2:
        planes = array[None]
    else:
        return None
    if min(planes.shape[1:]) < _LEAST_SIDE:
        return None
    low, high = _ends(array)
    if math.isnan(low):
        return None
    every = -(-max(planes.shape[1:]) // MAX_SIDE)
    values = planes[:, ::every, ::every].astype(np.float64)
    span = high - low
    scaled = (values - low) / span if span > 0 else np.full_like(values, 0.5)
    filled = np.nan_to_num(np.clip(scaled, 0.0, 1.0), nan=0.0)
    pixels: NDArray[np.uint8] = np.round(filled * 255).astype(np.uint8)
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)


def png_uri(pixels: NDArray[np.uint8]) -> str:
    """Bytes of (H, W) or (H, W, 3) as a PNG in a ``data:`` address."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    lines = pixels.reshape(height, -1)
    # Each line begins with its filter: 0, none.
    raw = np.hstack([np.zeros((height, 1), np.uint8), lines]).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
