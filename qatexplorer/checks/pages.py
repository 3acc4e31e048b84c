"""A rule's page and the table of all rules, as Markdown, made of what the rules themselves say."""

from __future__ import annotations

import re
from collections.abc import Iterable

from qatexplorer.checks.records import SEVERITIES
from qatexplorer.checks.rules import Rule
from qatexplorer.flows import FLOWS

_MEANING = {
    "error": "it will fail, is silently not quantized, or silently computes something else",
    "warning": "it costs accuracy or speed, or is hardly what was meant",
    "info": "good to know",
}
_WIDTH = 92
"""Characters of a docstring's line below a heading; what is filled to it goes on in the next."""


def rule_page(rule: Rule) -> str:
    """The page of one rule: what the user sees, why, what to do, where it was met."""
    stages = ", ".join(f"`{stage}` ({flow})" for flow, stage in stages_of(rule))
    return f"""# {rule.id} {rule.name}

{_marked(rule.title)}.

| severity | bites at stage |
|---|---|
| {rule.severity}: {_MEANING[rule.severity]} | {stages} |

## What you see

{_fenced(_unwrapped(rule.symptom), "text")}

## Why

{_prose(rule.cause)}

## What to do

{_prose(rule.fix)}

A finding has this for your model, with the path of the module: `qatexplorer check`, or
`session.check()` in Python.

## Where it was met

{chr(10).join(f"- <{source}>" for source in rule.sources)}

## How to silence it

Where it does no harm, in your `pyproject.toml`, with the reason ([more](../checks.md#silencing)):

```toml
[tool.qatexplorer.check]
silence = [{{ id = "{rule.id}", path = "path.of.the.module", reason = "why it does no harm" }}]
```
"""


def stages_of(rule: Rule) -> list[tuple[str, str]]:
    """(flow, stage) at which the rule bites, of each flow, as :meth:`Subject.stage_of` has it.

    A page is the same wherever it is made: flows that the user has registered are left out.
    """
    own = __name__.partition(".")[0]
    flows = [
        (name, flow())
        for name, flow in FLOWS.items()
        if flow.__module__.partition(".")[0] == own and rule.is_about(flow)
    ]
    found = [(name, flow, flow.stage_with(rule.role)) for name, flow in flows]
    return [
        (n, stage.name if stage is not None else flow.prepared_stage) for n, flow, stage in found
    ]


def rules_index(rules: Iterable[Rule]) -> str:
    """The table of all rules, the first page of their folder."""
    rows = [
        f"| [{rule.id}]({rule.id}.md) | {rule.name} | {rule.severity} | {_cell(rule.title)} |"
        for rule in sorted(rules, key=lambda rule: rule.id)
    ]
    meanings = "\n".join(f"- **{name}**: {_MEANING[name]}." for name in SEVERITIES)
    return f"""# Rules

What `qatexplorer check` and `session.check()` look for, a page a rule
([how to use them](../checks.md)). An id stays the same for ever.

{meanings}

| rule | name | severity | what is wrong |
|---|---|---|---|
{chr(10).join(rows)}
"""


def _cell(text: str) -> str:
    return _marked(text).replace("|", "\\|")


def _unwrapped(text: str) -> str:
    """The text with lines that were only broken for the width of the code put together again, so
    that an error message is one line as it is in a log."""
    lines: list[str] = []
    last = ""
    for line in text.splitlines():
        word = line.partition(" ")[0]
        goes_on = last and line and not line.startswith(" ") and len(last) + len(word) >= _WIDTH - 2
        if goes_on and not last.startswith(" "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
        last = line
    return "\n".join(lines)


def _prose(text: str) -> str:
    """Paragraphs as they are; what is indented is code."""
    parts: list[str] = []
    for block in re.split(r"((?:^ +.*\n?|^\n(?=^ ))+)", text, flags=re.MULTILINE):
        if not block.strip():
            continue
        if block.lstrip("\n").startswith(" "):
            lines = block.strip("\n").splitlines()
            margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            parts.append(_fenced("\n".join(line[margin:] for line in lines), "python"))
        else:
            parts.append(_marked(block.strip()))
    return "\n\n".join(parts)


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"


def _marked(text: str) -> str:
    """Text whose signs mean themselves in Markdown; what stands in backticks is left."""
    pieces = re.split(r"(`[^`\n]+`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"(<|\*|__|\[)", _escaped, piece)
        for piece in pieces
    )


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"\\{sign}" for sign in match[0])
