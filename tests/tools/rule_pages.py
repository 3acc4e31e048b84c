"""Write ``docs/rules``: a page a rule and the table of all, from the rules themselves.

Run from the repository: ``python -m tests.tools.rule_pages``. Nothing there is typed by hand;
pages of rules that are no more are removed.
"""

from __future__ import annotations

from pathlib import Path

from qatexplorer.checks import families
from qatexplorer.checks.pages import rule_page, rules_index
from qatexplorer.checks.rules import RULES

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "rules"
COMMAND = "python -m tests.tools.rule_pages"
assert families  # registers them


def pages() -> dict[str, str]:
    """Text of each file of the folder, by name."""
    texts = {f"{rule.id}.md": rule_page(rule) for rule in RULES.values()}
    return {"README.md": rules_index(RULES.values()), **dict(sorted(texts.items()))}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for file in FOLDER.glob("*.md"):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
