"""What the settings panel says: backends, stubs and their cost, runs to fuse."""

from __future__ import annotations

from html import escape

from qatexplorer.flows.base import FlowOptions
from qatexplorer.session.assess import Preflight, StubOption


def stub_options_html(options: tuple[StubOption, ...], current: str) -> str:
    """Table of the ways to quantize the input, each with its cost and whether it reaches int8."""
    rows = "".join(_stub_row(option, option.mode == current) for option in options)
    return (
        '<table class="qx-options"><caption class="qx-sr">Ways to quantize the input</caption>'
        "<thead><tr><th scope=col>Way</th><th scope=col>Fake quants</th>"
        "<th scope=col>Int8 modules</th><th scope=col>Float islands</th>"
        "<th scope=col>Reaches int8</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _stub_row(option: StubOption, current: bool) -> str:
    flight = option.preflight
    numbers = [str(option.fake_quants or "–")]
    numbers += [str(flight.int8_modules), str(flight.float_islands)] if flight.ok else ["–", "–"]
    cells = "".join(f"<td>{n}</td>" for n in numbers)
    mark = ' aria-current="true"' if current else ""
    chosen = " (in use)" if current else ""
    return (
        f"<tr{mark}><th scope=row>{escape(option.title)}{chosen}</th>{cells}"
        f"<td>{preflight_html(flight)}</td></tr>"
    )


def preflight_html(flight: Preflight) -> str:
    """Whether the model will run in int8 after training, or what stops it."""
    if flight.ok:
        notes = "".join(f"<br>{escape(note)}" for note in flight.notes)
        return f'<span class="qx-ok">✓ yes, tried on a copy</span>{notes}'
    error = flight.error
    if error is None:
        return '<span class="qx-bad">✗ no</span>'
    parts = [escape(error.message)]
    if error.why:
        parts.append(escape(error.why))
    if error.fix:
        parts.append(f"<b>What to do:</b> {escape(error.fix)}")
    return f'<span class="qx-bad">✗ no</span><br>{"<br>".join(parts)}'


def header_html(name: str, summary: str) -> str:
    """Title line: the model's class and its size."""
    return (
        f'<div class="qx-header"><h1>{escape(name)}</h1>'
        f'<span class="qx-muted">{escape(summary)}</span></div>'
    )


def qconfig_words(options: FlowOptions) -> str:
    """One line on the qconfig in force, e.g. for the header."""
    plan = options.qconfig
    exceptions = len(plan.by_path) + len(plan.by_type) + len(plan.by_regex)
    extra = f" with {exceptions} exceptions" if exceptions else ""
    reason = f": {plan.reason}" if plan.reason else ""
    return f"qconfig {plan.name}{extra}, int8 engine {plan.backend}{reason}"
