"""The panel "Take home": the script, the int8 model in a folder, the report, as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets

from qatexplorer.errors import InputError, QatExplorerError
from qatexplorer.reports import check_new, write_script
from qatexplorer.runs.place import default_folder
from qatexplorer.session.session import Session
from qatexplorer.views.common.busy import since_words
from qatexplorer.views.common.html import tag
from qatexplorer.views.common.story import message_html
from qatexplorer.views.takehome.words import (
    NO_DOWNLOAD,
    cannot_export,
    cannot_script,
    export_tip,
    file_html,
    folder_html,
    script_tip,
)
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import Html, button, labelled, row
from qatexplorer.widgets.common.download import HeldDownload
from qatexplorer.widgets.common.in_sight import InSight
from qatexplorer.widgets.common.long_job import Heard, LongJob

SCRIPT, EXPORT, REPORT = JOBS = "writing the script", "exporting", "writing the report"
"""Names of its jobs."""


class TakenHtml(Html):
    """HTML of what was written."""

    _css = css("common/html.css", "takehome/takehome.css")


@dataclass(frozen=True)
class _Written:
    """What came of a job: its HTML, and the file for the browser."""

    html: str
    filename: str = ""
    packed: bytes = b""


Write = Callable[[Session, Path, Heard, Callable[[], bool]], _Written]


class _Part(widgets.VBox):
    """A button, where its result is written, and what came of it.

    ``write(session, path, heard, should_stop)`` is called on a worker thread, as ``job``.
    """

    def __init__(
        self, job: LongJob, label: str, tip: str, field: str, write: Write, filetype: str = ""
    ) -> None:
        self.job, self.write = job, write
        self.start = button(label, tip, primary=True)
        self.path = labelled(
            widgets.Text("", continuous_update=False),
            field,
            "Of what is written; what is there already is never replaced",
            width="min(440px, 90vw)",
        )
        self.start.layout.width = "130px"  # so that the fields stand below one another
        self.path.style.description_width = "50px"
        self.halt, self.status = job.halt, job.status
        self.result = TakenHtml(role="status")
        controls = [self.start, self.path, self.halt, self.status]
        self.download: HeldDownload | None = None
        self.cannot = ""  # why it cannot be written in this flow
        if filetype:
            tip = "A copy on the computer that the browser runs on"
            self.download = HeldDownload(label="Save in the browser", tip=tip, type=filetype)
            controls.append(self.download)
        super().__init__([row(*controls), self.result])
        self.add_class("qx-taken-part")
        self.forget()

    def forget(self) -> None:
        """Nothing was written yet."""
        self.job.forget()
        self.result.html = self.status.html = ""
        self.hold("", b"")

    def hold(self, filename: str, packed: bytes) -> None:
        """Offer a file to the browser; ``b""`` is none."""
        if self.download is not None:
            self.download.hold(filename, packed)
            self.download.layout.display = "" if packed else "none"


class TakeHomePanel(InSight, widgets.VBox):
    """Three parts, made when the panel is first seen.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the other panels get it.

    ``active`` says whether the panel is in sight. Errors are shown in the part that they are of.
    """

    def __init__(self, bridge: Bridge, start_job: Callable[..., bool]) -> None:
        self._bridge, self._start_job = bridge, start_job
        self._session: Session | None = None
        self._enabled = True
        self.parts: Mapping[str, _Part] = {}
        super().__init__([])
        for name in ("qx-panel", "qx-takehome"):
            self.add_class(name)

    def _opened(self) -> None:
        if not self.parts:
            self._build()

    def _build(self) -> None:
        script = _Part(
            self._job(),
            "Script",
            "",
            "File",
            _script,
            "text/x-python",
        )
        export = _Part(
            self._job(),
            "Export folder",
            "",
            "Folder",
            _export,
        )
        report = _Part(
            self._job(),
            "Report",
            "All that is known of this session as one HTML file, which needs no network",
            "File",
            _report,
            "text/html",
        )
        self.parts = {SCRIPT: script, EXPORT: export, REPORT: report}
        for name, part in self.parts.items():
            part.start.on_click(lambda _, name=name: self.start(name))
        self.place = Html(kind="qx-muted")
        self.place.html = tag("span", f"Names are of files in {self.base}, unless they are paths.")
        self.children = [self.place, *self.parts.values()]
        self.follow()
        self._propose()
        self.set_enabled(self._enabled)

    def _job(self) -> LongJob:
        return LongJob(
            self._bridge,
            self._start_job,
            tip="Stop before the next step; nothing is left behind",
            stopping="Stopping before the next step …",
        )

    def follow(self) -> None:
        """The session's flow may be another: say what is written in it."""
        if self.parts and self._session is not None:
            for job, tip, cannot in (
                (SCRIPT, script_tip, cannot_script),
                (EXPORT, export_tip, cannot_export),
            ):
                part, why = self.parts[job], cannot(self._session.flow)
                part.cannot = why
                part.start.tooltip = why or tip(self._session.flow)
                part.status.html = tag("span", why) if why else ""
            self.set_enabled(self._enabled)

    @property
    def base(self) -> Path:
        """Where names without a folder are: beside the folder of runs."""
        return Path(default_folder()).expanduser().absolute().parent

    def use(self, session: Session | None) -> None:
        """Show another session."""
        self._session = session
        for part in self.parts.values():
            part.forget()
        self.follow()
        self._propose()
        self.set_enabled(self._enabled)

    def _propose(self) -> None:
        """Names that are free, after the model's."""
        session = self._session
        if session is None or not self.parts:
            return
        model = session.snapshots[session.stages[0]].modules[0].type_name.rpartition(".")[2]
        for job, name in ((SCRIPT, "walk.py"), (EXPORT, "int8"), (REPORT, "report.html")):
            self.parts[job].path.value = _free(self.base, f"{model}-{name}")

    def set_enabled(self, enabled: bool) -> None:
        """Whether a job may be begun."""
        self._enabled = enabled
        for part in self.parts.values():
            part.start.disabled = not enabled or self._session is None or bool(part.cannot)

    # -- writing --------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Write the part of this job on a worker thread."""
        session, part = self._session, self.parts[name]
        if session is None:
            return
        part.forget()
        try:
            path = self._path(name, part)
        except QatExplorerError as error:
            part.result.html = message_html(error)
            return

        def done(made: _Written) -> None:
            part.result.html = made.html
            part.hold(made.filename, made.packed)

        def failed(error: Exception) -> None:
            part.result.html = message_html(error)

        part.job.run(
            name,
            lambda heard, should_stop: part.write(session, path, heard, should_stop),
            done,
            words=since_words,
            stopped="Stopped; nothing was written.",
            failed=failed,
        )

    def _path(self, name: str, part: _Part) -> Path:
        given = part.path.value.strip()
        if not given:
            raise InputError(
                "there is no name to write to.", fix=f"Write one, such as {_EXAMPLES[name]}."
            )
        try:
            return self.base / Path(given).expanduser()
        except RuntimeError as error:
            raise InputError(
                f"{given!r} names the home of a user that this computer does not know.",
                fix="Write the path without ~.",
            ) from error


_EXAMPLES = {SCRIPT: "walk.py", EXPORT: "int8", REPORT: "report.html"}


def _free(folder: Path, name: str) -> str:
    """``name``, with a number if there is something of that name."""
    stem, dot, ending = name.partition(".")
    taken, found = 1, name
    while (folder / found).exists():
        taken += 1
        found = f"{stem}-{taken}{dot}{ending}"
    return found


def _script(session: Session, path: Path, _heard: Heard, _stop: Callable[[], bool]) -> _Written:
    text = session.script()
    return _file(write_script(text, path), text)


def _report(session: Session, path: Path, heard: Heard, stop: Callable[[], bool]) -> _Written:
    path = session.report(check_new(path), progress=heard, should_stop=stop)
    return _file(path, path.read_text(encoding="utf-8"))


def _export(session: Session, path: Path, heard: Heard, stop: Callable[[], bool]) -> _Written:
    return _Written(folder_html(session.export(path, progress=heard, should_stop=stop)))


def _file(path: Path, text: str) -> _Written:
    packed = HeldDownload.packed(text)
    note = "" if packed else NO_DOWNLOAD
    return _Written(file_html(path, path.stat().st_size, note), path.name, packed)
