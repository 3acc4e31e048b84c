"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Nets this small are slower on two threads than on one, and a busy machine makes it far worse.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `from tests.browser...` and an uninstalled checkout work under any import mode of pytest.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)
