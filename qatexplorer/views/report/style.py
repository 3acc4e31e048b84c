"""Look of a report, light and dark: one style sheet, and colours of drawings that follow it."""

from __future__ import annotations

import re

from qatexplorer.views.common.theme import DARK, LIGHT

_PAGE = """
:root{color-scheme:light dark;--fg:#1f2328;--muted:#59636e;--bg:#fff;--soft:#f6f8fa;
--line:#d0d7de;--link:#0550ae;--bad:#b3261e;--bar:#0072b2}
@media (prefers-color-scheme:dark){:root{--fg:#e6edf3;--muted:#9aa5b1;--bg:#111418;--soft:#1a1f26;
--line:#38414b;--link:#79b8ff;--bad:#ff8a80;--bar:#3391cf}}
*{box-sizing:border-box}
body{margin:0;color:var(--fg);background:var(--bg);font:14px/1.5 system-ui,-apple-system,"Segoe UI",
sans-serif}
main,header.top,nav{max-width:1200px;margin:0 auto;padding:0 20px}
h1{font-size:24px;margin:18px 0 4px}
h2{font-size:19px;margin:34px 0 8px;border-bottom:1px solid var(--line)}
h3{font-size:15px;margin:18px 0 6px} h4{font-size:14px;margin:12px 0 4px}
a{color:var(--link)}
code,pre,.mono{font-family:ui-monospace,Consolas,monospace;font-size:12.5px}
code,.mono{overflow-wrap:anywhere}
pre{background:var(--soft);padding:8px;overflow:auto}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--bg);padding:6px}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;padding:0;margin:8px 0}
.muted{color:var(--muted)}.missing{color:var(--muted);border-left:3px solid var(--line);
padding-left:10px}
.scroll{overflow:auto;max-height:560px;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;font-size:12.5px;width:100%}
caption{text-align:left;color:var(--muted);padding:4px 8px}
th,td{text-align:left;vertical-align:top;padding:3px 8px;border-bottom:1px solid var(--line)}
thead th{position:sticky;top:0;background:var(--soft)}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
dl{margin:6px 0}dl>div{display:flex;gap:10px}dt{flex:0 0 190px;color:var(--muted)}dd{margin:0;
overflow-wrap:anywhere}
details{margin:6px 0}summary{cursor:pointer;padding:2px 0}
td details{margin:0}td summary{padding:0}td ul{margin:2px 0;padding-left:18px}
.tree{padding:0 10px}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
figure{margin:10px 0}svg{max-width:100%;height:auto}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:6px 20px}
.finding{border-left:3px solid var(--line);padding:2px 12px;margin:10px 0}
.finding.error{border-color:var(--bad)}.finding.warning{border-color:#b8860b}
.finding p{margin:4px 0}
.qx-bar{display:block;height:5px;background:var(--soft)}
.qx-bar-fill{display:block;height:5px;background:var(--bar)}
.qx-lost{list-style:none;display:flex;flex-wrap:wrap;gap:12px;padding:0}
.qx-lost li{border:1px solid var(--line);border-radius:6px;padding:8px}
.qx-lost-body{display:flex;gap:10px}.qx-lost dt{flex-basis:50px}
.qx-lost h4,.qx-lost figure{margin:0}
.qx-lost img{image-rendering:pixelated}
@media print{.scroll{max-height:none}nav,.skip{display:none}}
"""

_GRAPH = {
    # fill and border of a box: float, fake-quantized, int8; arrows
    "#f3f4f6": "#22272e",
    "#e8f1fb": "#12283d",
    "#e6f6ef": "#10312a",
    "#0072b2": "#3391cf",
    "#00795a": "#2fae8a",
    "#b6bec6": "#4b5560",
}


_BOTH = {"#ffffff", "#8b949e", "none"}
"""White on a mark, and a grey: they read well on light and on dark."""
_DRAWN = re.compile(r' (?:fill|stroke)="([^"]+)"')
FOLLOWS = "follows"


def themed(svg: str) -> str:
    """``svg``, of the class :data:`FOLLOWS` if all its colours have a counterpart in the dark. One
    with others, such as shades between two, stays on white."""
    known = _BOTH | set(_pairs())
    if all(colour in known or "(" in colour for colour in _DRAWN.findall(svg)):
        return svg.replace("<svg ", f'<svg class="{FOLLOWS}" ', 1)
    return svg


def _pairs() -> dict[str, str]:
    """Colours of drawings on light, with those on dark."""
    pairs = {
        LIGHT.fg: DARK.fg,
        LIGHT.muted: DARK.muted,
        LIGHT.grid: DARK.grid,
        LIGHT.faint: DARK.faint,
        LIGHT.clipped: DARK.clipped,
        **dict(zip(LIGHT.series, DARK.series, strict=True)),
        **_GRAPH,
    }
    for kind, colour in LIGHT.kinds.items():
        pairs[colour] = DARK.kinds[kind]
    return pairs


def style_sheet() -> str:
    """The whole of it. Drawings are made for light; where the page is dark, what they are filled
    and drawn with is replaced by its counterpart (:func:`themed`)."""
    svg = f"svg.{FOLLOWS}"
    rules = [f'{svg}>rect[fill="{LIGHT.paper}"]{{fill:{DARK.paper}}}']
    for light, dark in _pairs().items():
        rules += [f'{svg} [{how}="{light}"]{{{how}:{dark}}}' for how in ("fill", "stroke")]
    return f"{_PAGE}@media (prefers-color-scheme:dark){{{''.join(rules)}}}"
