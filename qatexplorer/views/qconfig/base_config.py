"""The base config that a flow swaps layers for, field by field."""

from __future__ import annotations

from collections.abc import Sequence

from qatexplorer.flows.torchao import PartWords
from qatexplorer.views.common.html import Html, ask, code, join, tag, terms


def base_config_html(form: str, parts: Sequence[PartWords]) -> Html:
    """What decides how a layer is rounded; ``form`` is what the converted model is called.

    Returns:
        HTML, all text escaped. Its button asks for ``"panel:settings"``.
    """
    lead = tag(
        "p",
        "This flow has no qconfigs: the base config says how the layers that are swapped are "
        "rounded, and what they are converted to. Another one is chosen in ",
        ask("panel:settings", "Settings"),
        ", or by ",
        code("session.configure(base_config=…)"),
        ".",
    )
    found = [lead, tag("p", f"The model comes to: {form}.")]
    for part in parts:
        pairs = [(name, code(value)) for name, value in part.fields]
        head = tag("p", code(part.name), f", for {part.layers}:")
        found.append(tag("section", head, terms(pairs)))
    return tag("div", join(found), class_="qx-inspect")
