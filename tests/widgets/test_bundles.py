"""The JavaScript that is shipped is what its sources give."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WIDGETS = ROOT / "qatexplorer" / "widgets"
TOOLS = ROOT / "tests" / "js"
BUNDLES = sorted((WIDGETS / "bundled").glob("*.js"))
SOURCES = sorted(
    path
    for path in WIDGETS.rglob("*.js")
    if "bundled" not in path.parts and "vendor" not in path.parts
)


def sources_of(bundle: Path) -> list[str]:
    """Paths of the sources that the head of ``bundle`` names, below ``widgets/``."""
    head = bundle.read_text(encoding="utf-8").partition("\n\n")[0]
    return re.findall(r"^//   (\S+)$", head, re.MULTILINE)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_no_source_has_changed_since_the_bundle_was_made(bundle: Path) -> None:
    found = re.search(r"^// sha256 of these: (\w+)$", bundle.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    digest = hashlib.sha256()
    for name in sources_of(bundle):
        digest.update((WIDGETS / name).read_bytes())
    assert digest.hexdigest() == found[1], "stale: npm --prefix tests/js run build"


def test_every_source_is_in_a_bundle() -> None:
    bundled = {name for bundle in BUNDLES for name in sources_of(bundle)}
    assert SOURCES
    assert not [path for path in SOURCES if path.relative_to(WIDGETS).as_posix() not in bundled]


def test_a_bundle_imports_nothing() -> None:
    """anywidget loads it from a blob, where a relative import leads nowhere."""
    for bundle in BUNDLES:
        text = bundle.read_text(encoding="utf-8")
        assert not re.search(r"^import\b|^export .* from", text, re.MULTILINE), bundle
        assert re.search(r"^export \{$", text, re.MULTILINE), bundle


def test_the_bundler_gives_the_same() -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node.js, which users do not; .ci/run has it")
    if not (TOOLS / "node_modules").is_dir():
        pytest.skip("needs `npm --prefix tests/js ci`, which .ci/run does")
    done = subprocess.run(
        ["node", "build.mjs", "--check"], cwd=TOOLS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((WIDGETS / "common").glob("*.*")), ids=lambda p: p.name)
def test_what_screens_share_knows_no_screen(path: Path) -> None:
    """``common`` imports nothing of a screen, and takes no style sheet of one."""
    text = path.read_text(encoding="utf-8")
    screens = [p.name for p in WIDGETS.iterdir() if (p / "__init__.py").is_file()]
    for screen in set(screens) - {"common"}:
        assert f"qatexplorer.widgets.{screen}" not in text
        assert f"../{screen}/" not in text
        assert f'"{screen}/' not in text
