"""What this machine has and what is wrong with it, for a bug report: ``qatexplorer doctor``.

Every part is looked at by itself, and what a part raises is its answer: the report is made where
torch or a widget package is missing or broken. It names no user, host or folder beside the runs'.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from qatexplorer._tested import TESTED, is_tested
from qatexplorer._version import __version__
from qatexplorer.quantizers.cpu import cpu_facts
from qatexplorer.runs.place import default_folder
from qatexplorer.shown import error_line

SCHEMA = "qatexplorer.doctor"
SCHEMA_VERSION = 1

PACKAGES = {
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "safetensors": "safetensors",
    "ipywidgets": "ipywidgets",
    "jupyterlab_widgets": "jupyterlab_widgets",
    "anywidget": "anywidget",
    "plotly": "plotly",
    "jupyterlab": "jupyterlab",
    "voila": "voila",
    "ipykernel": "ipykernel",
}
"""Distribution → module to import."""

_FULL_DISK = 1_000_000_000  # bytes; a checkpoint holds model, optimizer and averages


def examine() -> dict[str, Any]:
    """The report, ready for JSON: plain dicts, lists, numbers and text.

    ``problems`` has a sentence for each thing that stops something from working, ``notes`` one for
    what is good to know. Raises nothing.
    """
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "qatexplorer": __version__,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": platform.platform(),
        },
        "cpu": cpu_facts(),
        "torch": _torch(),
        "packages": {name: _package(name, module) for name, module in PACKAGES.items()},
        "runs": _disk(default_folder()),
    }
    report |= _engines() if not report["torch"]["error"] else {"engines": [], "default": None}
    report["problems"], report["notes"] = _problems(report), _notes(report)
    return report


def _torch() -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": _version_of("torch"),
        "built_for": None,
        "tested": None,
        "tested_releases": list(TESTED),
        "threads": None,
        "kernels": None,
        "error": "",
    }
    try:
        import torch

        found["version"] = str(torch.__version__)
        found["built_for"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
        found["threads"] = torch.get_num_threads()
        found["kernels"] = torch.backends.cpu.get_cpu_capability()
    except Exception as error:
        found["error"] = error_line(error)
    if found["version"] is not None:
        found["tested"] = is_tested(found["version"])
    return found


def _engines() -> dict[str, Any]:
    from qatexplorer.quantizers.engine_choice import default_backend
    from qatexplorer.quantizers.engine_probe import probe_engines

    try:
        rows = [
            {
                "engine": probe.engine,
                "verdict": probe.verdict,
                "steps_off_0_255": probe.error_at(255),
                "steps_off_0_127": probe.error_at(127),
                "trained_codes": probe.trained,
                "error": probe.error,
                "milliseconds": round(probe.seconds * 1_000, 1),
            }
            for probe in probe_engines()
        ]
        best = default_backend()
    except Exception as error:
        return {"engines": [], "default": None, "engines_error": error_line(error)}
    chosen = {"engine": best.engine, "qconfig": best.qconfig, "reason": best.reason}
    return {"engines": rows, "default": chosen}


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except Exception:  # missing, or its metadata is
        return None


def _package(name: str, module: str) -> dict[str, Any]:
    found: dict[str, Any] = {"version": _version_of(name), "needs": "", "error": ""}
    try:
        importlib.import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        found["error"] = (
            "is not installed" if missing else f"cannot be imported: {error_line(error)}"
        )
    try:
        needed = _needed(name)
        found["needs"] = str(needed or "")
        if needed is not None and not found["error"] and found["version"] not in needed:
            found["error"] = f"is {found['version']}, and qatexplorer needs {needed}"
    except Exception:
        pass  # run from a folder that is not installed: nobody says what is needed
    return found


def _needed(name: str) -> Any:
    """The range of versions that this package asks for, None if it does not name ``name``."""
    from packaging.requirements import Requirement

    for line in metadata.requires("qatexplorer") or ():
        wanted = Requirement(line)
        if wanted.name.lower() == name and wanted.marker is None:
            return wanted.specifier
    return None


def _disk(folder: str) -> dict[str, Any]:
    """Room where runs go; the folder itself may not be there yet."""
    path = Path(folder).expanduser().absolute()
    try:
        there = next(p for p in (path, *path.parents) if p.exists())
        free = shutil.disk_usage(there).free
        usable = there.is_dir() and os.access(there, os.W_OK)
        error = "" if usable else f"{there.name} is no folder that this account can write to"
        return {"folder": folder, "free_bytes": free, "error": error}
    except Exception as error:
        return {"folder": folder, "free_bytes": None, "error": error_line(error)}


def _problems(report: dict[str, Any]) -> list[str]:
    sentences = []
    torch = report["torch"]
    if torch["error"]:
        what = "is not installed" if torch["version"] is None else "cannot be imported"
        sentences.append(f"torch {what}: {torch['error']}")
    if report.get("engines_error"):
        sentences.append(f"No int8 engine can be chosen: {report['engines_error']}")
    chosen = report["default"]
    if chosen and not any(
        row["engine"] == chosen["engine"] and row["verdict"] in ("exact", "clamps")
        for row in report["engines"]
    ):
        sentences.append(f"No int8 engine computes right on this CPU. {chosen['reason']}")
    sentences += [f"{n} {p['error']}" for n, p in report["packages"].items() if p["error"]]
    runs = report["runs"]
    if runs["error"]:
        sentences.append(f"The folder for runs, {runs['folder']}, cannot be used: {runs['error']}")
    elif runs["free_bytes"] < _FULL_DISK:
        sentences.append(f"Little room is left for runs: {_gigabytes(runs['free_bytes'])}.")
    return sentences


def _notes(report: dict[str, Any]) -> list[str]:
    sentences = []
    torch = report["torch"]
    if torch["tested"] is False:
        releases = ", ".join(torch["tested_releases"])
        sentences.append(f"torch {torch['version']} is not one of those tested ({releases}).")
    for row in report["engines"]:
        if row["verdict"] == "saturates" and row["engine"] != report["default"]["engine"]:
            sentences.append(f"{row['engine']} saturates on this CPU, and is not the default here.")
    return sentences


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def as_text(report: dict[str, Any]) -> str:
    """The same for people, to paste into an issue."""
    python, cpu, torch = report["python"], report["cpu"], report["torch"]
    tested = {True: "tested", False: "not tested", None: "unknown"}[torch["tested"]]
    lines = [
        f"qatexplorer {report['qatexplorer']}",
        f"{python['implementation']} {python['version']} on {python['platform']}",
        f"torch {torch['version'] or 'missing'} ({tested}"
        + (f", built for {torch['built_for']})" if torch["built_for"] else ")"),
        f"cpu {cpu['name']}, {cpu['architecture']}: "
        + ("features unknown" if cpu["features"] is None else " ".join(cpu["features"])),
        f"threads {torch['threads'] or '?'} of {cpu['usable'] or '?'} CPUs"
        + (f", torch's own kernels {torch['kernels']}" if torch["kernels"] else ""),
        *(f"{name}={value}" for name, value in cpu["environment"].items()),
        "",
        "int8 engines (largest error in steps of 127, run on this CPU)",
        *(_engine_line(row) for row in report["engines"]),
    ]
    chosen = report["default"]
    if chosen:
        lines.append(f"  default: engine {chosen['engine']}, qconfig {chosen['qconfig']}.")
        lines.append(f"  {chosen['reason']}")
    lines += ["", "packages"]
    for name, package in report["packages"].items():
        needs = f"  (needs {package['needs']})" if package["needs"] else ""
        lines.append(f"  {name:<19}{package['version'] or 'missing'}{needs}")
    runs = report["runs"]
    free = "unknown" if runs["free_bytes"] is None else _gigabytes(runs["free_bytes"])
    lines += ["", f"runs: {free} free for {runs['folder']}", ""]
    lines += [f"note: {note}" for note in report["notes"]]
    lines += [f"PROBLEM: {problem}" for problem in report["problems"]]
    if not report["problems"]:
        lines.append("Nothing is wrong.")
    return "\n".join(lines)


def _engine_line(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"  {row['engine']:<9}fails: {row['error']}"
    return (
        f"  {row['engine']:<9}{row['verdict']:<11}codes 0..255: {row['steps_off_0_255']:.0f}, "
        f"0..127: {row['steps_off_0_127']:.0f}; own qconfig trains on 0..{row['trained_codes']}"
    )
