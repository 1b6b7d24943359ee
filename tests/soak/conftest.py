"""Long runs share what the other tests share: fakes and the fuzz of tests/services."""

from __future__ import annotations

import sys
from pathlib import Path

# Test modules share helpers by `tests.…`, and `tests` is not installed.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.undisturbed import here, port, reference

__all__ = ["here", "port", "reference"]
