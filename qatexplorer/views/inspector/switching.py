"""Whether switching fake quants off changes the output, as a section of the inspector's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qatexplorer.evaluate.switching import Switching
from qatexplorer.snapshot.records import FakeQuantSite
from qatexplorer.views.common.html import Html, ask, go, join, kind_badge, tag
from qatexplorer.views.common.names import count

ASKS = "switching"
"""What the section's button asks the page for."""
_TIP = (
    "Two forwards of the example input, with all fake quants on and with all off; the model stays "
    "as it is"
)


@dataclass(frozen=True)
class SwitchSection:
    """What is known of the switch: ``found`` is None while nobody has tried it."""

    found: Switching | None = None


def switch_html(section: SwitchSection, sites: Sequence[FakeQuantSite]) -> Html:
    """The section for the fake quants ``sites``, those of one place.

    Returns:
        HTML of one ``<section>``, all text escaped. Its button asks for :data:`ASKS`.
    """
    title = tag("h4", "Does switching fake quants off change the output?")
    found = section.found
    if found is None:
        words = join(["Not tried with the model as it is now. ", ask(ASKS, "Try it", _TIP)])
        return tag("section", title, tag("p", words, class_="qx-muted"), class_="qx-switch")
    items = [_item(found, site) for site in sites]
    again = join(["Tried on the example input, in eval mode. ", ask(ASKS, "Try again", _TIP)])
    return tag(
        "section",
        title,
        tag("p", answer_words(found), class_="qx-remark" if found.stuck else "qx-why"),
        tag("ul", *items),
        tag("p", again, class_="qx-muted"),
        class_="qx-switch",
    )


def answer_words(found: Switching) -> str:
    """The answer for the whole model, in a sentence or two."""
    if not found.ran:
        return "No fake quant ran."
    number = count(len(found.ran), "fake quant")
    if found.output:
        text = f"Yes: without the {number} an output differs by up to {found.output:.3g}."
    else:
        text = f"No: with the {number} on and off the output is the same."
    if found.stuck:
        verb = "rounds" if len(found.stuck) == 1 else "round"
        text += f" {len(found.stuck):,} of them {verb} though switched off."
    return text


def _item(found: Switching, site: FakeQuantSite) -> Html:
    words, stuck = _does(found, {site.path, *site.aliases})
    name = go(f"site:{site.path}", site.path.rpartition(".")[2], site.path)
    return tag(
        "li", kind_badge(site.kind), " ", name, ": ", words, class_="qx-remark" if stuck else None
    )


def _does(found: Switching, paths: set[str]) -> tuple[str, bool]:
    """What a fake quant does on and off, and whether that is a fault."""
    if not paths & set(found.ran):
        return "did not run.", False
    if paths & set(found.stuck):
        return "rounds though it is off: its switch has no effect.", True
    if paths & set(found.idle):
        return "on, it changes nothing in this tensor; off, it passes it on.", False
    return "on, it rounds; off, it passes the tensor on unchanged.", False
