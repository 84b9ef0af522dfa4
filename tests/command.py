"""`run.py`, called as a script in this process, since a new process takes seconds to start."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

RUN = Path(__file__).parents[1] / "run.py"


def run_py(*overrides: str) -> Any:
    """Call `run.py` with overrides in the current folder; return its exit code."""
    with patch.object(sys, "argv", [str(RUN), *overrides]):
        try:
            runpy.run_path(str(RUN), run_name="__main__")
        except SystemExit as end:
            return end.code or 0
        finally:
            if loky := sys.modules.get("joblib.externals.loky"):  # its workers wait for more work
                loky.get_reusable_executor().shutdown(wait=True)
    return 0
