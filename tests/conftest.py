"""What all tests share."""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

# Nets this small are slower on two threads than on one, and a busy machine makes it far worse.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# After every 700 new objects, as by default, looking for cycles slows tests by a tenth.
gc.set_threshold(50_000, 10, 10)

# `from tests.browser...` and an uninstalled checkout work under any import mode of pytest.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)


@pytest.fixture(scope="session", autouse=True)
def _environment_in_the_result(
    record_testsuite_property: Callable[[str, object], None], pytestconfig: pytest.Config
) -> None:
    """What ``tests.tools.compatibility`` reads of a result that is kept with ``--junitxml``."""
    if not pytestconfig.option.xmlpath:
        return
    for name in ("torch", "torchvision"):
        with suppress(metadata.PackageNotFoundError):
            record_testsuite_property(name, metadata.version(name))
    record_testsuite_property("python", platform.python_version())


@pytest.fixture(autouse=True)
def _torch_of_its_own() -> Iterator[None]:
    """What a test sets for the whole process does not reach the next one of another file."""
    import torch  # after OMP_NUM_THREADS is set

    engine, threads = torch.backends.quantized.engine, torch.get_num_threads()
    yield
    torch.backends.quantized.engine = engine
    torch.set_num_threads(threads)
    # Where a test prepares a model by torch's own call, torch would keep it.
    if fx_utils := sys.modules.get("torch.ao.quantization.fx.utils"):
        fx_utils.assert_and_get_unique_device.cache_clear()


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Full collections and ``gc.get_objects`` see only what the test makes, and are quick: a
    process that has run a thousand tests holds millions of objects."""
    gc.freeze()
    yield
    gc.unfreeze()


_GROWN = 256 * 2**20
_held = [0]


def _resident() -> int:
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:  # not Linux
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def pytest_runtest_logfinish() -> None:
    """Sessions lie in cycles of few objects and many bytes, which Python's own collector, that
    counts objects, leaves until a process has gigabytes of them."""
    if _resident() - _held[0] > _GROWN:
        gc.collect()
        _held[0] = _resident()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _mark_slow(items)
    _leave_out_long(config, items)
    if config.pluginmanager.hasplugin("_cov"):
        _count_quick_tests_only(items)
    if hasattr(config, "workerinput"):
        _heavy_files_first(items)


def _leave_out_long(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is ``long`` runs only where ``-m`` speaks of it: ``-m long``."""
    if "long" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


ALL_COUNTED = ("accuracy", "checks", "cures", "takehome")
"""Rooms many of whose lines only their slow tests run."""


def _count_quick_tests_only(items: list[pytest.Item]) -> None:
    """What traces lines makes a test half as slow again; in most rooms, those that are not slow run
    nearly all lines, too."""
    for item in items:
        if item.get_closest_marker("slow") and item.path.parent.name not in ALL_COUNTED:
            item.add_marker(pytest.mark.no_cover)


def _heavy_files_first(items: list[pytest.Item]) -> None:
    """So that one process does not wait for the other's last file."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def _mark_slow(items: list[pytest.Item]) -> None:
    """Marks ``slow`` what ``tests/slow.txt`` lists; see ``tests/tools/slow_tests.py``."""
    lines = (Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines()
    listed = {line.rstrip(" *"): line.endswith(" *") for line in lines if line[:1] != "#"}
    begun: set[str] = set()
    for item in items:
        name = item.nodeid.partition("[")[0]
        if name not in listed:
            continue
        if listed[name] and name not in begun:
            begun.add(name)  # the first of the cases stays
        else:
            item.add_marker(pytest.mark.slow)
