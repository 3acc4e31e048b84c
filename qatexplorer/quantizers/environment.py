"""What numbers were measured on: the CPU, torch and its int8 engines, versions."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch

from qatexplorer._version import __version__
from qatexplorer.quantizers.cpu import cpu_facts
from qatexplorer.quantizers.engine_probe import EngineProbe, probe_engines

PACKAGES = ("numpy", "safetensors", "torchvision", "timm", "onnx", "onnxruntime")
"""Distributions whose version is given where they are installed."""


@dataclass(frozen=True)
class Environment:
    """The machine and the process that asked.

    Attributes:
        cpu: of :func:`~.cpu.cpu_facts`. threads: that torch computes with.
        kernels: which of torch's own kernels run (its CPU capability).
        versions: by name: qatexplorer, Python, torch, and :data:`PACKAGES` that are installed.
        platform: operating system, with its release. probes: of torch's int8 engines here.
    """

    cpu: dict[str, Any]
    threads: int
    kernels: str
    versions: dict[str, str] = field(default_factory=dict)
    platform: str = ""
    probes: tuple[EngineProbe, ...] = ()


def environment() -> Environment:
    """Of this process, now."""
    versions = {
        "qatexplorer": __version__,
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except Exception:  # missing, or its metadata is
            continue
    return Environment(
        cpu_facts(),
        torch.get_num_threads(),
        torch.backends.cpu.get_cpu_capability(),
        versions,
        platform.platform(),
        probe_engines(),
    )
