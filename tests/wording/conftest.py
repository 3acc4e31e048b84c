"""Snapshots as text files, a file a test; ``--snapshot-update`` writes them anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from qatexplorer.quantizers.engine import available_engines
from qatexplorer.widgets.explorer import settings as settings_module
from tests.support.engines import fake_machine, faked


class TextFile(SingleFileSnapshotExtension):
    """A text file, so that a change of wording reads as one in a diff."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"


@pytest.fixture
def wording(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Equal to a text if that is what the snapshot file holds."""
    return snapshot.use_extension(TextFile)


@pytest.fixture(autouse=True)
def same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Probes that find every engine exact, a folder for runs, and a seed: the words that follow
    do not depend on the CPU. What int8 computes is tested elsewhere, on real probes."""
    probes = tuple(faked(name) for name in available_engines())
    fake_machine(monkeypatch, *probes)
    monkeypatch.setattr(settings_module, "probe_engines", lambda: probes)
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
