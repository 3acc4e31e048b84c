"""What all tests share."""

from __future__ import annotations

import sys
from pathlib import Path

# `from tests.browser...` and an uninstalled checkout work under any import mode of pytest.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)
