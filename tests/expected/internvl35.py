"""InternVL3.5."""

from __future__ import annotations

from expected import internvl


class Expected(internvl.Expected):
    """As version 3."""
