"""Processes of one training, as ``torchrun`` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def processes(code: str, count: int, *arguments: object) -> list[subprocess.Popen[str]]:
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                **shared,
                "RANK": str(rank),
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
            },
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in range(count)
    ]


def ended(started: list[subprocess.Popen[str]]) -> list[str]:
    """What each has said on stderr."""
    try:
        return [one.communicate(timeout=240)[1] for one in started]
    finally:
        for one in started:
            one.kill()
