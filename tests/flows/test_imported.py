"""torchao is loaded without what it says of libraries that nobody asked for."""

from __future__ import annotations

import logging
import sys

import pytest

from qatexplorer.flows.imported import imported


def test_warnings_of_an_import_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "loud_one.py").write_text(  # type: ignore[operator]
        "import logging\n"
        "logging.getLogger('torchao').warning('not loaded')\n"
        "logging.getLogger('torchao').error('broken')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = logging.getLogger("torchao").level
    with caplog.at_level(logging.WARNING):
        assert imported("loud_one") is sys.modules.pop("loud_one")
    assert [record.message for record in caplog.records] == ["broken"]
    assert logging.getLogger("torchao").level == before
    with pytest.raises(ImportError):
        imported("no_such_torchao")
