"""A guard that watches a page and fails the test on anything a user should never meet."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    Route,
    WebSocket,
    WebSocketRoute,
)

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost"})
_HOST = r"(?!(?:127\.0\.0\.1|localhost)(?::\d+)?(?:[/?#]|$))"
_FOREIGN_HTTP = re.compile(r"^https?://" + _HOST)
_FOREIGN_WS = re.compile(r"^wss?://" + _HOST)

#: Outputs that show a failed cell, in JupyterLab and in Voila.
ERROR_OUTPUTS = ", ".join(
    (
        ".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']",
        ".jp-OutputArea .jp-mod-error",
        ".jp-mod-error.jp-RenderedText",
        ".jupyter-widgets.jp-mod-error",
        ".voila-error, .jp-OutputArea-output pre.traceback",
    )
)
STDERR_OUTPUTS = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']"
# A widget whose view could not be made says so in its own box, without a failed cell.
WIDGET_FAILURES = ".jupyter-widgets-error-widget, .jp-OutputWidget-error"

_SHOWN_WRONG = (ERROR_OUTPUTS, STDERR_OUTPUTS, WIDGET_FAILURES)
_TEXTS = """(selectors) => selectors.map((selector) =>
  [...document.querySelectorAll(selector)].map((node) => node.textContent))"""

#: (kind of finding, pattern searched in its text, why it is harmless).
ALLOWED: tuple[tuple[str, str, str], ...] = (
    (
        "failed",
        r"^POST http://[^/]+/voila/api/shutdown/[0-9a-f-]+: net::ERR_ABORTED$",
        "Voila's beacon of a page that is left: its empty answer has no page to arrive at",
    ),
)


class GuardError(AssertionError):
    """The page showed something a user should never meet; the message lists every finding."""


@dataclass(frozen=True)
class Finding:
    """One thing the guard saw. ``kind`` is one of ``console``, ``page``, ``failed``, ``status``,
    ``foreign``, ``cell`` or ``widget``; ``text`` says what and where."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"[{self.kind}] {self.text}"


def is_local(url: str) -> bool:
    """True for this machine's loopback names and for urls that no network carries."""
    parts = urlsplit(url)
    if parts.scheme in ("data", "blob", "about", "chrome-error"):
        return True
    return parts.hostname in LOCAL_HOSTS


@dataclass
class Guard:
    """Watches every page of a browser context from its creation on.

    ``check()`` raises :class:`GuardError` for all findings that ``allowed`` does not excuse.
    A test adds its own exception with ``allow(kind, pattern, why)``.
    """

    context: BrowserContext
    allowed: list[tuple[str, str, str]] = field(default_factory=lambda: list(ALLOWED))
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        context = self.context
        context.route(_FOREIGN_HTTP, self._abort)
        context.route_web_socket(_FOREIGN_WS, self._refuse)
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_failed)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self._add("page", str(error.error)))
        context.on("page", self._on_page)
        for page in context.pages:
            self._on_page(page)

    def allow(self, kind: str, pattern: str, why: str) -> None:
        """Excuse findings of ``kind`` that match ``pattern``; ``why`` must say the reason."""
        if not why:
            raise ValueError("an exception to the guard needs its reason")
        self.allowed.append((kind, pattern, why))

    def unexcused(self) -> list[Finding]:
        """All findings up to now, with the pages' error outputs, less the allowed ones."""
        seen = [*self.findings]
        for page in self.context.pages:
            seen += self._error_outputs(page)
        return [finding for finding in seen if not self._is_allowed(finding)]

    def check(self) -> None:
        """Raise on any finding.

        Raises:
            GuardError: with one line for each finding.
        """
        found = self.unexcused()
        if found:
            lines = "\n  ".join(str(finding) for finding in dict.fromkeys(found))
            raise GuardError(f"the page is not clean:\n  {lines}")

    def _is_allowed(self, finding: Finding) -> bool:
        return any(
            kind == finding.kind and re.search(pattern, finding.text)
            for kind, pattern, _ in self.allowed
        )

    def _add(self, kind: str, text: str) -> None:
        self.findings.append(Finding(kind, text))

    def _abort(self, route: Route) -> None:
        route.abort("blockedbyclient")

    def _refuse(self, socket: WebSocketRoute) -> None:
        # Nothing connects to the far side unless asked to, so closing keeps it on this machine.
        self._add("foreign", f"WebSocket {socket.url}")
        socket.close()

    def _on_page(self, page: Page) -> None:
        page.on("websocket", self._on_websocket)
        page.on("crash", lambda crashed: self._add("page", f"crashed: {crashed.url}"))

    def _on_websocket(self, socket: WebSocket) -> None:
        if not is_local(socket.url):
            self._add("foreign", f"WebSocket {socket.url}")

    def _on_request(self, request: Request) -> None:
        if not is_local(request.url):
            self._add("foreign", f"{request.method} {request.url} ({request.resource_type})")

    def _on_failed(self, request: Request) -> None:
        if is_local(request.url):
            self._add("failed", f"{request.method} {request.url}: {request.failure}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            place = message.location
            where = f"{place.get('url', '')}:{place.get('lineNumber', '')}"
            self._add("console", f"{message.text} (at {where})")

    def _error_outputs(self, page: Page) -> list[Finding]:
        if page.is_closed():
            return []
        found = []
        try:
            for frame in page.frames:
                errors, stderr, widgets = frame.evaluate(_TEXTS, _SHOWN_WRONG)
                found += [Finding("cell", _tail(text)) for text in errors]
                found += [Finding("cell", _tail(text)) for text in stderr if "Traceback" in text]
                found += [Finding("widget", _tail(text)) for text in widgets]
        except Error as error:
            found.append(Finding("page", f"could not be read: {error}"))
        return found


def _tail(text: str, length: int = 1500) -> str:
    return text.strip()[-length:]
