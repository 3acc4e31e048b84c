"""What is known of the CPU that int8 kernels run on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

CPU_FEATURES = (
    *("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16"),
    *("amx_int8", "asimd", "asimddp", "i8mm", "sve"),
)
"""What int8 kernels ask a CPU for, as Linux spells it."""

KERNEL_VARIABLES = (
    *("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    "FBGEMM_ENABLE_INSTRUCTIONS",
)
"""Environment variables that change which kernels run, or on how many threads."""


def cpu_facts() -> dict[str, Any]:
    """``name``, ``architecture``, ``features``, ``usable`` (CPUs) and ``environment``: as Linux
    tells them; elsewhere what Python knows, features None."""
    name, features = platform.processor() or platform.machine(), None
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
        name = facts.get("model name", name)
        if "cpu family" in facts:  # virtual machines often hide the rest of the name
            name += f" (family {facts['cpu family']}, model {facts['model']})"
        flags = facts.get("flags", facts.get("Features", "")).split()
        features = [feature for feature in CPU_FEATURES if feature in flags]
    except OSError:
        pass
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "name": name,
        "architecture": platform.machine(),
        "features": features,
        "usable": usable,
        "environment": {v: os.environ[v] for v in KERNEL_VARIABLES if v in os.environ},
    }
