"""python kernels/benchmarks [OPERATION ...]: see `benchmarks.driver`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.driver import main  # noqa: E402

raise SystemExit(main(sys.argv[1:]))
