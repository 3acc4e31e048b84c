"""A parser that finds what is not well-formed in a page, and what can be selected there."""

from __future__ import annotations

from html.parser import HTMLParser


class Checker(HTMLParser):
    """Raises on tags that do not nest; collects text and selections."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.words: list[str] = []
        self.selections: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.close()
        assert not self.stack, self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.stack.append(tag)
        self.tags.append(tag)
        self.selections += [v or "" for k, v in attrs if k == "data-select"]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())
