"""Starting Voila and JupyterLab on this machine's loopback interface."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qatexplorer.errors import QatExplorerError
from qatexplorer.runs.place import DEFAULT_FOLDER, RUNS_VARIABLE

LOOPBACK = "127.0.0.1"
MODEL_VARIABLE = "QATEXPLORER_MODEL"
EXAMPLE_VARIABLE = "QATEXPLORER_EXAMPLE"
_HERE = Path(__file__).resolve().parents[1]


class LaunchError(QatExplorerError):
    """A server cannot be started."""


def notebooks_folder() -> Path:
    """Where the notebooks lie: inside the installed package, or beside it in a checkout.

    Raises LaunchError if they are in neither place.
    """
    for folder in (_HERE / "notebooks", _HERE.parent / "notebooks"):
        if (folder / "dashboard.ipynb").is_file():
            return folder
    raise LaunchError(
        "the notebooks are missing from this installation.",
        where=str(_HERE / "notebooks"),
        fix="Install the package again, from its wheel or from a complete checkout.",
    )


def claim_port(port: int | None, first: int) -> int:
    """``port`` if nobody listens on it; without one, the first free port from ``first`` on.

    Raises LaunchError if it is in use, or may not be used.
    """
    candidates = [port] if port is not None else range(first, first + 50)
    reason = ""
    for candidate in candidates:
        with socket.socket() as probe:
            # As the server does, so that a port which only waits for its last packets is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, candidate))
            except OSError as error:
                reason = error.strerror or str(error)
                continue
            return candidate
    what = f"port {port}" if port is not None else f"every port from {first} to {first + 49}"
    raise LaunchError(
        f"{what} of {LOOPBACK} cannot be used: {reason}.",
        why="Another program listens there, or this account may not.",
        fix="Choose another with --port, or leave --port out and a free one is taken.",
    )


def hand_over(model: str | None, example: str | None) -> None:
    """Tell the kernels to come which model to open, and let them import what this process can."""
    for variable, value in ((MODEL_VARIABLE, model), (EXAMPLE_VARIABLE, example)):
        if value:
            os.environ[variable] = value
        else:
            os.environ.pop(variable, None)
    # Inside the installed package, where the dashboard's notebook lies, is no place for runs.
    os.environ.setdefault(RUNS_VARIABLE, os.path.join(os.getcwd(), DEFAULT_FOLDER))
    # A kernel starts in the notebook's folder; the model named here is found from this one.
    if model:
        _prepend("PYTHONPATH", os.getcwd())
    if str(_HERE.parent) in map(os.path.abspath, sys.path) and not _installed():
        _prepend("PYTHONPATH", str(_HERE.parent))


def run_voila(*, port: int, browser: bool, theme: str, warm: int = 1) -> int:
    """Serve the dashboard until interrupted; ``warm`` kernels wait for pages, see ``warm.py``."""
    notebook = notebooks_folder() / "dashboard.ipynb"
    _prepend("JUPYTER_PATH", str(_HERE / "share" / "jupyter"))
    arguments = [
        str(notebook),
        "--template=qatexplorer",
        f"--theme={theme}",
        f"--Voila.ip={LOOPBACK}",
        f"--Voila.port={port}",
        "--Voila.port_retries=0",
        # The user is the owner of the machine: an error is for their eyes.
        "--show_tracebacks=True",
        # A closing page says so without an _xsrf field. Refused, it would leave its kernel, and
        # the memory that holds, behind. What a page may do is still bound to its origin.
        "--Voila.tornado_settings=disable_check_xsrf=True",
        # Plotly's own widget is not on this page, and its extension is 4 MB to read.
        "--VoilaConfiguration.extension_denylist=jupyterlab-plotly",
        "--VoilaConfiguration.extension_denylist=jupyterlab_pygments",
        "--VoilaConfiguration.multi_kernel_manager_class=qatexplorer.app.warm.WarmKernels",
        f"--WarmKernels.size={warm}",
    ]
    if not browser:
        arguments.append("--no-browser")
    from voila.app import Voila

    print(f"Dashboard: http://{LOOPBACK}:{port}/  (Ctrl-C ends it)", flush=True)
    return _serve(Voila.launch_instance, arguments)


def run_lab(*, folder: Path, port: int, browser: bool) -> int:
    """Open JupyterLab on ``folder``, with the notebooks copied to it, until interrupted."""
    copied = copy_notebooks(folder)
    for path in copied:
        print(f"copied {path}")
    arguments = [
        f"--ServerApp.ip={LOOPBACK}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder.resolve()}",
        "--LabApp.default_url=/lab/tree/quickstart.ipynb",
        # Nothing here asks the network: no news, no update check, no list of extensions.
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if not browser:
        arguments.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # Containers often know only root; the server listens to this machine alone, with a token.
        arguments.append("--allow-root")
    from jupyterlab.labapp import LabApp

    return _serve(LabApp.launch_instance, arguments)


def copy_notebooks(folder: Path) -> list[Path]:
    """Copy the bundled notebooks to ``folder``; files that are there already stay as they are.

    Returns the paths that were written. Raises LaunchError if the folder cannot be written to.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in sorted(notebooks_folder().glob("*.ipynb")):
            target = folder / source.name
            if not target.exists():
                shutil.copyfile(source, target)
                written.append(target)
    except OSError as error:
        raise LaunchError(
            f"the notebooks cannot be copied to {folder}: {error.strerror or error}.",
            fix="Name a folder that you can write to with --dir.",
        ) from error
    return written


def _serve(launch: Callable[..., Any], arguments: list[str]) -> int:
    try:
        launch(argv=arguments)
    except KeyboardInterrupt:
        print("Ended.")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    return 0


def _installed() -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    with contextlib.suppress(PackageNotFoundError):
        return bool(distribution("qatexplorer"))
    return False


def _prepend(variable: str, entry: str) -> None:
    parts = [part for part in os.environ.get(variable, "").split(os.pathsep) if part]
    if entry not in parts:
        os.environ[variable] = os.pathsep.join([entry, *parts])
