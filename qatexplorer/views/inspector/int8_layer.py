"""All numbers of an int8 layer, and one output by hand, as a section of the inspector's page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qatexplorer.accuracy.int8_layer import Int8Layer
from qatexplorer.accuracy.int8_record import InputNumbers, Worked
from qatexplorer.accuracy.int8_text import (
    FIXED_POINT,
    agreement_text,
    bias_text,
    channel_rows,
    clamp_text,
    kernel_text,
    number,
    weight_text,
)
from qatexplorer.errors import QatExplorerError
from qatexplorer.views.common.html import Html, code, folded, go, join, tag, terms
from qatexplorer.views.common.names import shape_text

MOST_PRODUCTS, MOST_CELLS, MOST_CHANNELS = 256, 1024, 512
"""Rows of the table of products, cells of a map of codes and rows of channels that are drawn."""
_A_ROW = 16


@dataclass(frozen=True)
class Int8Section:
    """What the inspector knows of the int8 layer that is selected.

    Attributes:
        layer: its numbers, None while they are being made. samples: of the example input's batch.
        sizes: of an output of one sample, the channel first. error: why there are no numbers.
    """

    layer: Int8Layer | None = None
    samples: int = 1
    sizes: tuple[int, ...] = ()
    error: Exception | None = None


def int8_html(section: Int8Section) -> Html:
    """The section.

    Returns:
        HTML of one ``<section>``, all text escaped. Fields with ``data-ask`` ask the page for
        ``"int8:sample:<n>"``, ``"int8:call:<n>"`` or ``"int8:output:<axis>:<n>"`` with what is
        typed as ``n``; buttons with ``data-copy`` copy what it says.
    """
    layer = section.layer
    if section.error is not None:
        error = section.error
        words = f"{type(error).__name__}: {error}"
        if isinstance(error, QatExplorerError):
            words = f"{error.message} {error.why}"
        body: Iterable[Html | None] = [
            tag("p", f"There are no numbers of this layer: {words}", class_="qx-remark")
        ]
    elif layer is None:
        body = [tag("p", "The int8 model runs once on the example input …", class_="qx-muted")]
    else:
        body = _layer(layer, section)
    title = tag("h4", "All numbers of this int8 layer")
    return tag("section", title, *body, class_="qx-int8-layer")


def _layer(layer: Int8Layer, section: Int8Section) -> list[Html | None]:
    ran = f"{layer.kind}: {layer.operation} on engine {layer.engine}."
    return [
        tag("p", ran, " ", layer.sentence or None, class_="qx-why"),
        _grids(layer),
        _agreement(layer),
        _by_hand(layer, section),
        _copies(layer),
        _products(layer),
        _codes(layer),
        _channels(layer),
    ]


# -- grids ----------------------------------------------------------------------------------------


def _grids(layer: Int8Layer) -> Html:
    several = len(layer.inputs) > 1
    rows: list[tuple[object, object]] = []
    for at, given in enumerate(layer.inputs):
        rows.append((f"input {at}" if several else "input", _input(given)))
    out = layer.output
    rows.append(("output", _grid(out.scale, out.zero_point, out.dtype, out.shape)))
    rows.append(("clamped to", clamp_text(layer)))
    rows += [(name, ", ".join(map(str, values))) for name, values in layer.geometry]
    rows.append(("weight", weight_text(layer)))
    rows.append(("bias", bias_text(layer)))
    return terms(rows)


def _input(given: InputNumbers) -> Html:
    parts: list[Html | str] = [_grid(given.scale, given.zero_point, given.dtype, given.shape)]
    if given.owner:
        owner: Html | str = given.owner
        if given.owner_is:
            owner = go(f"{given.owner_is}:{given.owner}", given.owner)
        parts += ["; its scale is that of ", owner]
        parts.append(f" ({given.owner_type})")
    if given.fake_quant:
        parts += [", from fake quant ", go(f"site:{given.fake_quant}", given.fake_quant)]
    if given.through:
        parts.append(f"; then through {', '.join(given.through)}")
    return join(parts)


def _grid(scale: float | None, zero: int | None, dtype: str, shape: tuple[int, ...]) -> Html:
    if scale is None:
        return join([f"{dtype}, {shape_text(shape)}"])
    rest = f", zero point {zero}, {dtype}, {shape_text(shape)}"
    return join(["scale ", code(f"{scale:.9g}"), rest])


def _agreement(layer: Int8Layer) -> Html | None:
    lines = agreement_text(layer)
    if not lines:
        return None
    off = layer.nearest is not None and layer.nearest.largest > 1
    items = [tag("li", line) for line in lines]
    return tag("ul", *items, class_="qx-remark qx-int8-agree" if off else "qx-int8-agree")


# -- one output -----------------------------------------------------------------------------------


def _by_hand(layer: Int8Layer, section: Int8Section) -> Html | None:
    worked = layer.worked
    if worked is None:
        return None
    items = [
        tag(
            "li",
            tag("span", step.name, class_="qx-muted"),
            tag("span", code(step.formula), " = ", tag("b", number(step.value))),
        )
        for step in worked.steps
    ]
    same = worked.code == worked.kernel_code
    verdict = tag("p", kernel_text(worked), class_="qx-ok" if same else "qx-remark")
    return tag(
        "div",
        tag("h4", "One output by hand"),
        _chooser(layer, worked, section),
        tag("ol", *items, class_="qx-int8-steps"),
        verdict,
    )


def _chooser(layer: Int8Layer, worked: Worked, section: Int8Section) -> Html:
    fields = []
    if layer.calls > 1:
        fields.append(_field("call", "int8:call", layer.call, layer.calls))
    if section.samples > 1:
        fields.append(_field("sample", "int8:sample", worked.sample, section.samples))
    for axis, (at, size) in enumerate(zip(worked.output, section.sizes, strict=True)):
        fields.append(_field(_axis(axis, len(section.sizes)), f"int8:output:{axis}", at, size))
    return tag("p", *fields, class_="qx-int8-chooser")


def _axis(axis: int, axes: int) -> str:
    if axis == 0:
        return "channel"
    return ("y", "x")[axis - 1] if axes == 3 else f"position {axis}" if axes > 2 else "position"


def _field(name: str, asks: str, value: int, size: int) -> Html:
    box = tag(
        "input",
        type="number",
        value=value,
        min=0,
        max=size - 1,
        step=1,
        data_ask=asks,
        data_lm_suppress_shortcuts="true",
    )
    return tag("label", tag("span", name), box, tag("small", f"0 to {size - 1}"))


def _copies(layer: Int8Layer) -> Html | None:
    text, script = layer.text(), layer.numpy_code()
    buttons = [tag("button", "Copy as text", type="button", class_="qx-button", data_copy=text)]
    if not script:
        return tag("p", *buttons)
    buttons.append(
        tag("button", "Copy as NumPy code", type="button", class_="qx-button", data_copy=script)
    )
    shown = _scrolled("NumPy code", tag("pre", tag("code", script)))
    return join([tag("p", join(buttons, " ")), folded("NumPy code", shown)])


# -- tables ---------------------------------------------------------------------------------------


def _scrolled(name: str, *children: Html) -> Html:
    """What may be wider or longer than the page, reachable by keys. JupyterLab's shortcuts ask the
    focused element itself whether to keep out."""
    return tag(
        "div",
        *children,
        class_="qx-int8-scroll",
        tabindex="0",
        role="region",
        aria_label=name,
        data_lm_suppress_shortcuts="true",
    )


def _table(name: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    heads = [tag("th", one, scope="col", class_="qx-number") for one in head]
    lines = [tag("tr", *(tag("td", cell, class_="qx-number") for cell in row)) for row in rows]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines))
    return _scrolled(name, table)


def _left_out(shown: int, total: int, what: str) -> Html | None:
    if total <= shown:
        return None
    return tag("p", f"The first {shown:,} of {total:,} {what}.", class_="qx-muted")


def _products(layer: Int8Layer) -> Html | None:
    worked, weight = layer.worked, layer.weight
    if worked is None or weight is None or not worked.weight_codes:
        return None
    x_zero, w_zero = layer.inputs[0].zero_point or 0, weight.zero_points[worked.output[0]]
    pairs = list(zip(worked.input_codes, worked.weight_codes, strict=True))
    rows = [(x, x - x_zero, w, (x - x_zero) * (w - w_zero)) for x, w in pairs[:MOST_PRODUCTS]]
    title = f"Products ({len(pairs):,})"
    head = ("input code", f"minus {x_zero}", "weight code", "product")
    note = None
    if worked.padded:
        note = tag(
            "p",
            f"{worked.padded:,} of the {len(pairs):,} input codes are padding: the zero point.",
            class_="qx-muted",
        )
    left = _left_out(MOST_PRODUCTS, len(pairs), "products")
    return folded(title, note, _table("Products", head, rows), left)


def _codes(layer: Int8Layer) -> Html | None:
    """The codes of the window and of the channel's weight as maps, in the same order."""
    worked, weight = layer.worked, layer.weight
    if worked is None or weight is None or not worked.weight_codes:
        return None
    width = _A_ROW
    dims = weight.codes.shape[2:]
    kernel = 1
    for size in dims:
        kernel *= int(size)
    by_kernel = dims and "Transpose" not in layer.kind and 1 < kernel <= 2 * _A_ROW
    if by_kernel:
        width = kernel
    rows = "a row an input channel" if by_kernel else f"{_A_ROW} a row"
    given = layer.inputs[0]
    zero = given.zero_point or 0
    far = max(given.high - zero, zero - given.low, 1)
    channel = worked.output[0]
    return folded(
        f"Codes as maps ({rows})",
        tag("p", f"Weight codes of channel {channel}:", class_="qx-muted"),
        _map(f"Weight codes of channel {channel}", worked.weight_codes, width, 0, 128),
        tag("p", f"Input codes of this window, zero point {zero}:", class_="qx-muted"),
        _map("Input codes of this window", worked.input_codes, width, zero, far),
    )


def _map(name: str, codes: Sequence[int], width: int, middle: int, far: int) -> Html:
    shown = codes[:MOST_CELLS]
    lines = []
    for start in range(0, len(shown), width):
        cells = [_cell(value, middle, far) for value in shown[start : start + width]]
        lines.append(tag("tr", tag("th", start // width, scope="row"), *cells))
    table = tag("table", tag("tbody", *lines), class_="qx-int8-map")
    return join([_scrolled(name, table), _left_out(MOST_CELLS, len(codes), "codes")])


def _cell(value: int, middle: int, far: int) -> Html:
    part = min(1.0, abs(value - middle) / far)
    side = "qx-below" if value < middle else "qx-above"
    return tag("td", value, class_=side, style=f"--qx-part:{100 * part:.0f}%")


def _channels(layer: Int8Layer) -> Html | None:
    rows = channel_rows(layer)
    if not rows:
        return None
    what = {"products": "Channels", "batch norm": "Channels"}.get(layer.arithmetic, "Multipliers")
    total = len(rows) - 1
    return folded(
        f"{what} ({total:,})",
        tag("p", FIXED_POINT, class_="qx-muted"),
        _table(what, rows[0], rows[1 : MOST_CHANNELS + 1]),
        _left_out(MOST_CHANNELS, total, "channels"),
    )
