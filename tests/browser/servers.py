"""Real JupyterLab and Voila servers for the browser tests, isolated from the user's own Jupyter."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.waiting import PATIENCE_S

REPO_ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
# The last two keep the browser itself from looking anything up: a request that slips past the
# guard's routes (a worker, a preconnect) then fails by name instead of leaving the machine.
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
)
# A block cannot be overridden in part, so the links are taken out of what the parent renders.
OFFLINE_TEMPLATE = """{%- extends 'voila/templates/lab/index.html.j2' -%}
{%- block notebook_css -%}
{{ super() | replace('<link rel="stylesheet" href="https://', '<meta name="cut" content="') }}
{%- endblock notebook_css -%}
"""
# An environment's proxy must not stand between the tests and a server on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def find_chromium() -> str | None:
    """Path of the Chromium: ``QATEXPLORER_CHROMIUM``, else the first known name on PATH."""
    named = os.environ.get("QATEXPLORER_CHROMIUM")
    if named:
        return shutil.which(named)
    return next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A running server with its whole process group.

    Attributes:
        name: what it is, for messages ("JupyterLab", "Voila").
        url: address without a trailing slash.
        root: directory it serves notebooks from.
        log_path: file that takes its stdout and stderr.
        process: the server process, leader of its own process group.
        page: path of the page that a user opens there.
    """

    name: str
    url: str
    root: Path
    log_path: Path
    process: subprocess.Popen[bytes]
    startup_s: float = field(default=0.0)
    page: str = "/"

    def api(self, path: str, method: str = "GET", timeout: float = PATIENCE_S) -> Any:
        """Call the server's REST API, e.g. ``api("/api/kernels")``; the parsed JSON or ``None``."""
        request = urllib.request.Request(self.url + path, method=method)
        with _OPENER.open(request, timeout=timeout) as reply:
            body = reply.read()
        return json.loads(body) if body else None

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of the server's log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def wait_until_up(self, path: str, timeout_s: float = PATIENCE_S) -> None:
        """Poll ``path`` until it answers.

        Raises:
            RuntimeError: the process ended or the time ran out; the message holds the log's tail.
        """
        begin = time.monotonic()
        while time.monotonic() - begin < timeout_s:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at its start:\n{self.log_tail()}")
            try:
                with _OPENER.open(self.url + path, timeout=timeout_s):
                    self.startup_s = time.monotonic() - begin
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not answer in {timeout_s:.0f} s:\n{self.log_tail()}")

    def kernel_processes(self) -> dict[str, psutil.Process]:
        """The kernels this server started: kernel id (or connection file stem) → process."""
        found = {}
        for child in _children(self.process.pid):
            try:
                arguments = child.cmdline()
            except psutil.Error:
                continue
            for argument in arguments:
                stem = Path(argument).stem
                if argument.endswith(".json") and stem.startswith("kernel-"):
                    found[stem[len("kernel-") :]] = child
        return found

    def stop(self) -> None:
        """End the server, its process group and the kernels it left behind: nothing that they
        would keep in good order is looked at again."""
        # Kernels live in sessions of their own, so the group's signal does not reach them.
        descendants = _children(self.process.pid)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for child in descendants:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait(PATIENCE_S)
        # Where nobody reaps orphans they stay in the table of processes; that may be.
        psutil.wait_procs(descendants, timeout=5)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _die_with_parent() -> None:
    """Ask Linux to end this new process when its parent is killed before it could clean up."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def isolated_env(home: Path) -> dict[str, str]:
    """Environment in which Jupyter reads and writes only below ``home``.

    The kernelspec ``python3`` there runs this very interpreter, and ``PYTHONPATH`` holds the
    repository's root when qatexplorer is not installed.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    for variable, folder in {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }.items():
        (home / folder).mkdir(parents=True, exist_ok=True)
        env[variable] = str(home / folder)
    spec = home / "data" / "kernels" / "python3"
    spec.mkdir(parents=True, exist_ok=True)
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": launch, "display_name": "Python 3", "language": "python"})
    )
    env["PYTHONUNBUFFERED"] = "1"
    env["QATEXPLORER_RUNS"] = str(home / "runs")
    try:
        importlib.metadata.distribution("qatexplorer")
    except importlib.metadata.PackageNotFoundError:
        paths = [str(REPO_ROOT), env.get("PYTHONPATH", "")]
        env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return env


def _app_settings(home: Path) -> Path:
    """Copy JupyterLab's settings folder and put our overrides in it."""
    from jupyterlab.commands import get_app_dir

    target = home / "app_settings"
    source = Path(get_app_dir()) / "settings"
    if source.is_dir():
        shutil.copytree(source, target)
    target.mkdir(exist_ok=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    overrides = {"@jupyterlab/apputils-extension:notification": quiet}
    (target / "overrides.json").write_text(json.dumps(overrides))
    return target


def start_lab(home: Path) -> Server:
    """Start JupyterLab over the empty folder ``home / "notebooks"``; stop it with ``.stop()``."""
    port = free_port()
    arguments = [
        *("-m", "jupyterlab", "--no-browser"),
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.news_url=",
        # Only to read state (kernel busy, prompts) and to switch themes: clicks stay clicks.
        "--LabApp.expose_app_in_browser=True",
        f"--LabApp.app_settings_dir={_app_settings(home)}",
        "--ServerApp.disable_check_xsrf=True",
        "--ServerApp.root_dir=" + str(home / "notebooks"),
        "--ServerApp.allow_remote_access=False",
        "--ServerApp.allow_root=True",
        "--LanguageServerManager.autodetect=False",
        "--IdentityProvider.token=",
        "--ServerApp.ip=127.0.0.1",
    ]
    return start_command("JupyterLab", arguments, home, port=port, probe="/api/status")


def _offline_template(home: Path) -> str:
    """Write a Voila template ``offline`` for this server and return its name.

    Voila's own ``lab`` template links two style sheets of a public CDN. Nothing else in it leaves
    the machine, and the icon font is in Voila's bundle too.
    """
    folder = home / "data" / "voila" / "templates" / "offline"
    folder.mkdir(parents=True)
    (folder / "conf.json").write_text(json.dumps({"base_template": "lab"}))
    (folder / "index.html.j2").write_text(OFFLINE_TEMPLATE)
    return folder.name


def start_voila(served: Path, home: Path, *, template: str | None = "offline") -> Server:
    """Serve a notebook, or all of a folder, with Voila; stop it with ``.stop()``.

    ``/`` of its url is the notebook; those of a folder are at :func:`voila_path`.

    Args:
        template: Voila template; ``"offline"`` is the stock one without its CDN links, ``None``
            the stock one itself.
    """
    port = free_port()
    arguments = [
        *("-m", "voila", str(served), "--no-browser"),
        f"--Voila.port={port}",
        "--Voila.port_retries=0",
        "--Voila.ip=127.0.0.1",
        "--show_tracebacks=True",
        # Its page sends no _xsrf with the "I am closed" beacon, so the check answers 403 and the
        # kernel of every closed page would live on.
        "--Voila.tornado_settings=disable_check_xsrf=True",
    ]
    if template == "offline":
        template = _offline_template(home)
    if template:
        arguments.append(f"--template={template}")
    # Any page would run the notebook, so the poll asks for a file that costs nothing.
    # Kernels of a folder's notebooks start beside them only if the server was started there too.
    cwd = served if served.is_dir() else None
    probe = "/voila/static/voila.js"
    return start_command("Voila", arguments, home, port=port, probe=probe, cwd=cwd)


def voila_path(name: str) -> str:
    """Path of the page of the notebook ``name`` of a folder that Voila serves."""
    return f"/voila/render/{name}"


def start_command(
    name: str,
    arguments: Sequence[str],
    home: Path,
    *,
    port: int,
    probe: str,
    cwd: Path | None = None,
) -> Server:
    """Start ``python <arguments>`` in an isolated Jupyter environment and wait until it answers.

    For servers that the package itself starts, for example ``["-m", "qatexplorer.app.cli",
    "dashboard", "--no-browser", "--port", str(port)]``.

    Args:
        home: an empty folder for its settings, notebooks and log.
        port: the loopback port it will listen on, see :func:`free_port`.
        probe: path that is polled; one whose answer costs nothing.
        cwd: where it is started; ``home`` by default.

    Raises:
        RuntimeError: it ended or did not answer in time; the message holds its log.
    """
    (home / "notebooks").mkdir(parents=True, exist_ok=True)
    log_path = home / f"{name.lower()}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd or home,
            env=isolated_env(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    server = Server(name, f"http://127.0.0.1:{port}", home / "notebooks", log_path, process)
    try:
        server.wait_until_up(probe)
    except BaseException:
        server.stop()
        raise
    return server
