"""Several methods in sequence, as one method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ivcp.core.errors import UserError
from ivcp.core.layer_kinds import Kinds
from ivcp.core.pruner import Pruner, Renumbering, Stage
from ivcp.core.selection import Selection
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class Compose(Pruner):
    """Let each method prune what the method before has kept, such as VisionZip and then FastV.

    Each stage has the needs of its own method. Every part keeps a fraction of the tokens that reach
    it, and these fractions multiply to `keep_ratio`. A part with several stages counts from the
    complete image, so its first stages may find little to drop.

    Attributes:
        keep_ratio: Fraction of visual tokens after the last part, in (0, 1].
        parts: The methods, in the order of their layers, as a list or a mapping; a method that
            needs complete images comes first.
        ratios: "equal" gives all parts the same fraction. "own" keeps the `keep_ratio` of each
            part; `keep_ratio` must then be their product.
    """

    parts: tuple[Pruner, ...]
    ratios: Literal["equal", "own"] = "equal"

    def __post_init__(self) -> None:
        if isinstance(self.parts, Mapping):  # a config names its parts
            object.__setattr__(self, "parts", tuple(self.parts.values()))
        super().__post_init__()
        if len(self.parts) < 2:
            raise UserError(f"parts must be two or more methods; got {list(self.parts)}.")
        for number, part in enumerate(self.parts):
            name = type(part).__name__
            if not part.fills_ratio():
                raise UserError(f"Each part must prune to a ratio; {name} does not: {part!r}.")
            if not part.decides_by_image():
                raise UserError(f"{name} decides for all images together, so it cannot be a part.")
            if number and part.takes_whole_images():
                raise UserError(
                    f"{name} needs all tokens of an image, so it must be the first part."
                )
        if len({part.renumbers() for part in self.parts}) > 1:
            raise UserError("All parts must renumber positions, or none: set renumber alike.")
        product = math.prod(part.keep_ratio for part in self.parts)
        if self.ratios == "own" and not math.isclose(product, self.keep_ratio, rel_tol=1e-6):
            raise UserError(
                f"The keep ratios of the parts multiply to {product:g}; keep_ratio is "
                f"{self.keep_ratio:g}: set it to that, or ratios to equal."
            )

    def fills_ratio(self) -> bool:
        return self.ratios == "equal"

    def takes_whole_images(self) -> bool:
        return self.parts[0].takes_whole_images()

    def stages(self) -> tuple[Stage, ...]:
        return tuple(stage for part in self.parts for stage in part.stages())

    def reads_start(self) -> bool:
        return any(part.reads_start() for part in self.parts)

    def renumbers(self) -> Renumbering:
        return self.parts[0].renumbers()

    def fitted(
        self,
        model_type: str,
        layers: int,
        provides: frozenset[Signal] = frozenset(),
        kinds: Kinds = (),
    ) -> Compose:
        parts = tuple(part.fitted(model_type, layers, provides, kinds) for part in self.parts)
        return replace(self, parts=parts)

    def plan(self, tokens: int) -> tuple[int, ...]:
        return tuple(count for part in self.fractions() for count in part.plan(tokens))

    def select(self, view: View, stage: int) -> Selection:
        for part in self.fractions():
            if stage < (count := len(part.stages())):
                return part.select(view, stage)
            stage -= count
        raise RuntimeError(f"no part has the stage {stage}")

    def fractions(self) -> list[Pruner]:
        """The parts with what they leave of the complete image, from which each part counts."""
        ratio, parts = 1.0, []
        for number, part in enumerate(self.parts, 1):
            ratio *= part.keep_ratio
            if self.ratios == "equal":
                ratio = self.keep_ratio ** (number / len(self.parts))
            if number == len(self.parts):  # exact, whatever rounding the powers left
                ratio = self.keep_ratio
            parts.append(replace(part, keep_ratio=ratio))
        return parts
