"""Makes `tests.servers` importable: benchmarks use the servers too, `tests` is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
