"""Budgets by what papers count: tokens of an image, a mean over the layers, or FLOPs.

"192 tokens" are those that remain at the end for a method that prunes before the language model,
and a mean over the decoder layers for one that prunes inside. So that both can be asked for, the
keep ratio of a method is solved for here, image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

from ivcp.core.budget import Count, Over, in_words
from ivcp.core.errors import UnreachableBudgetError, UserError
from ivcp.core.frame_view import by_frame
from ivcp.core.joined_view import over_sample
from ivcp.core.layer_kinds import Kinds
from ivcp.core.pruner import Pruner, Renumbering, Size, Stage, TokenCount
from ivcp.core.selection import Selection
from ivcp.core.view import Signal, View

LARGE = 100_000
"""Tokens of an image large enough for its rounding not to matter."""
HOLDERS: dict[Over, str] = {"video": "an image", "frame": "a frame", "sample": "a sample"}
"""What has a budget, in words."""


@dataclass(frozen=True, kw_only=True)
class Budgeted(Pruner):
    """Let a method keep as many tokens as it takes to meet a budget, counted as papers count it.

    The method's `keep_ratio` is replaced, for each image, by the one that comes nearest. A method
    that decides for all images of a sample together gets one ratio for all of them.

    A budget can also hold for each frame of a video, which the method then prunes as it does an
    image; or for all images and frames of a sample, which it then prunes as it does one image.

    Attributes:
        keep_ratio: The budget as a fraction of the unpruned prompt's, in (0, 1]; unless `tokens`
            are given.
        method: The method; it must prune to a ratio.
        tokens: The budget as a number of visual tokens instead.
        budget_over: What the budget holds for. "video": each image and each video. "frame": each
            image and each frame of a video. "sample": all images and frames together, of which each
            image or video keeps at least one token.
        count: What the budget counts. "final": tokens that the last stage leaves. "layer_average":
            tokens that a decoder layer processes, mean over the layers (the convention of
            SparseVLM). "flops": operations of the language model's prefill, as a fraction of the
            unpruned ones, or those of a prompt that has so many `tokens` in all layers. A first
            pass counts in both.
        solved: Whether the keep ratio is solved for; if not, the method's own settings, such as
            those that its authors published for this budget, are left as they are.
    """

    method: Pruner
    tokens: int | None = None
    budget_over: Over = "video"
    count: Count = "final"
    solved: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens is not None and self.tokens < 1:
            raise UserError(f"tokens must be a whole number of at least 1; got {self.tokens}.")
        if self.before_processor and self.count == "flops":
            raise UserError(f"{self.name} has no budget of FLOPs: use another budget.")
        if self.before_processor and self.budget_over != "video":
            raise UserError(
                f"{self.name} resizes images before they have tokens, so its budget holds for each "
                "image: leave out budget_over."
            )
        if self.solved and not self.before_processor and not self.method.fills_ratio():
            raise UserError(
                f"{self.name} has numbers of tokens of its own, so it cannot be given a budget: "
                "leave out tokens and budget, or the setting that fixes these numbers."
            )

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def before_processor(self) -> bool:  # type: ignore[override]
        return self.method.before_processor

    def image_sizes(self, sizes: Sequence[Size], count: TokenCount) -> list[Size]:
        resized = []
        for number, size in enumerate(sizes):
            length = round(count([size] * len(sizes)) / len(sizes))
            ratio = min(1.0, self._wanted(length) / length) if self.solved else self.keep_ratio
            method, alike = replace(self.method, keep_ratio=ratio), [size] * len(sizes)
            resized.append(method.image_sizes(alike, count)[number])
        return resized

    def stages(self) -> tuple[Stage, ...]:
        return self.method.stages()

    def reads_start(self) -> bool:
        return self.method.reads_start()

    def renumbers(self) -> Renumbering:
        return self.method.renumbers()

    def takes_whole_images(self) -> bool:
        return self.method.takes_whole_images()

    def decides_by_image(self) -> bool:
        return False  # FLOPs are those of the whole prompt

    def fills_ratio(self) -> bool:
        return self.solved and self.tokens is None and self.count == "final"

    def fitted(
        self,
        model_type: str,
        layers: int,
        provides: frozenset[Signal] = frozenset(),
        kinds: Kinds = (),
    ) -> Budgeted:
        """The method with its layers; refuses a ratio that no image of this depth could reach."""
        fitted = replace(self, method=self.method.fitted(model_type, layers, provides, kinds))
        counted = self.tokens is not None or self.count != "final"
        if self.solved and counted and not self.before_processor:
            fitted.method.plan(LARGE)
            if self.tokens is None and self.count == "layer_average":
                fitted.ratio(LARGE, layers)
        return fitted

    def plan(self, tokens: int) -> tuple[int, ...]:
        raise UserError("What a budget leaves depends on the depth and the prompt.")

    def select(self, view: View, stage: int) -> Selection:
        return self.select_sample([view], stage)[0]

    def select_sample(self, views: Sequence[View], stage: int) -> list[Selection]:
        decide = partial(self._select, stage=stage)
        if self.budget_over == "frame":
            return by_frame(views, decide)
        if self.budget_over == "sample" and self.method.decides_by_image():
            return over_sample(views, decide)
        return decide(views)

    def _select(self, views: Sequence[View], stage: int) -> list[Selection]:
        """Selections of images, frames, or joined images, each with a budget."""
        if not self.solved:
            return self.method.select_sample(views, stage)
        lengths = [view.image.length for view in views]
        if self.count == "flops":
            ratios = [self.flops_ratio(views)] * len(views)
        else:
            ratios = [self.ratio(length, views[0].layers) for length in self._holders(lengths)]
        if self.method.decides_by_image():
            return [
                replace(self.method, keep_ratio=ratio).select(view, stage)
                for view, ratio in zip(views, ratios, strict=True)
            ]
        parts = lengths if self.count == "flops" else self._holders(lengths)
        kept = sum(ratio * length for ratio, length in zip(ratios, parts, strict=True))
        return replace(self.method, keep_ratio=kept / sum(lengths)).select_sample(views, stage)

    def _holders(self, lengths: Sequence[int]) -> Sequence[int]:
        """Visual tokens of whatever has a budget, given those of a sample's views."""
        return [sum(lengths)] if self.budget_over == "sample" else lengths

    def ratio(self, length: int, layers: int) -> float:
        """The keep ratio that meets the budget on an image alone.

        Args:
            length: Visual tokens of the image.
            layers: Number of decoder layers.

        Raises:
            UnreachableBudgetError: The image has too few tokens, or the method's layers leave too
                many.
        """
        wanted = self._wanted(length)
        if self.count == "final":
            return min(1.0, wanted / length)

        def average(kept: int) -> float:
            processed = sum(self._by_layer(kept / length, length, layers))
            return (processed + self.first_pass() * length) / layers

        kept, least = nearest(average, length, wanted), average(1)
        if least > wanted + 0.5:
            share = "" if length == LARGE else f" ({least:.1f} of {length})"
            raise UnreachableBudgetError(
                f"{self.name} before layer {self._layers()} of {layers} lets "
                f"{100 * least / length:.1f} % of the visual tokens through{share}, mean over the "
                "layers, however few remain at the end; "
                f"{in_words(self.keep_ratio, self.tokens, 'final')} were asked for: ask for more, "
                "or prune earlier."
            )
        return kept / length

    def flops_ratio(self, views: Sequence[View]) -> float:
        """The keep ratio of all images of a prompt that meets a budget of operations.

        Raises:
            UnreachableBudgetError: As `ratio`.
        """
        lengths, layers = [view.image.length for view in views], views[0].layers
        text, flops, total = views[0].text_tokens, views[0].prefill_flops, sum(lengths)
        whole = flops([text + total] * layers)
        wanted, first_pass = self.keep_ratio * whole, [text + total] * self.first_pass()
        if self.tokens is not None:
            visual = sum(int(self._wanted(length)) for length in self._holders(lengths))
            wanted = flops([text + visual] * layers)

        def cost(kept: int) -> float:
            images = [self._by_layer(kept / total, length, layers) for length in lengths]
            layer_tokens = [text + sum(tokens) for tokens in zip(*images, strict=True)]
            return flops(layer_tokens, first_pass)

        kept, least = nearest(cost, total, wanted), cost(1)
        if least > wanted + (cost(2) - least if total > 1 else 0):
            raise UnreachableBudgetError(
                f"{self.name} before layer {self._layers()} of {layers} takes "
                f"{100 * least / whole:.1f} % of this prompt's FLOPs, however few tokens remain; "
                f"{100 * wanted / whole:.1f} % were asked for: ask for more, or prune earlier."
            )
        return kept / total

    def _wanted(self, length: int) -> float:
        """Tokens of an image that the budget allows."""
        if self.tokens is None:
            return self.keep_ratio * length
        if self.tokens > length:
            raise UnreachableBudgetError(
                f"tokens={self.tokens} were asked for, but {HOLDERS[self.budget_over]} has "
                f"{length} visual tokens: ask for fewer, or for a ratio."
            )
        return self.tokens

    def _by_layer(self, ratio: float, length: int, layers: int) -> list[int]:
        """Visual tokens of an image that each layer processes."""
        method = replace(self.method, keep_ratio=ratio)
        counts = [length] * layers
        for stage, tokens in zip(method.stages(), method.plan(length), strict=True):
            counts[stage.layer :] = [min(tokens, counts[stage.layer])] * (layers - stage.layer)
        return counts

    def _layers(self) -> str:
        """The layers of the stages in words."""
        layers = ", ".join(str(stage.layer) for stage in self.stages())
        first_pass = self.first_pass()
        return f"{layers} (and a first pass of {first_pass})" if first_pass else layers


def budgeted(
    method: Pruner,
    layers: int,
    *,
    tokens: int | None,
    count: Count,
    solved: bool = True,
    budget_over: Over = "video",
) -> Pruner:
    """The method with the budget that a configuration names.

    Args:
        method: The method, with its layers filled in; its `keep_ratio` is the budget's ratio.
        layers: Number of decoder layers.
        tokens: As in `Budgeted`.
        count: Likewise.
        solved: Likewise.
        budget_over: Likewise.

    Raises:
        UserError: The method cannot be given this budget, or has one already.
    """
    if method.prunes() and not (solved and tokens is None and count == "final"):
        if isinstance(method, Budgeted):
            raise UserError("The pruner has a budget already: leave out tokens and budget.")
        ratio = method.keep_ratio
        method = Budgeted(
            method=method, keep_ratio=ratio, tokens=tokens, count=count, solved=solved
        )
    method = with_budget_over(method, budget_over)
    return method.fitted("", layers) if isinstance(method, Budgeted) else method


def with_budget_over(method: Pruner, budget_over: Over) -> Pruner:
    """The method with a budget that holds for videos, frames or samples.

    Raises:
        UserError: There is no such budget, or the method cannot be given it.
    """
    if budget_over not in get_args(Over):
        raise UserError(f"budget_over must be {' or '.join(get_args(Over))}; got {budget_over!r}.")
    if budget_over == "video" or not method.prunes():
        return method
    if isinstance(method, Budgeted):
        return replace(method, budget_over=budget_over)
    solved = method.before_processor or method.fills_ratio()  # else its own settings stand
    return Budgeted(
        method=method, keep_ratio=method.keep_ratio, solved=solved, budget_over=budget_over
    )


def nearest(measure: Callable[[int], float], most: int, wanted: float) -> int:
    """The number of 1 .. `most` whose measure is nearest; of two, the smaller one.

    >>> nearest(lambda number: 2.0 * number, 10, 7.0)
    3
    """
    low, high = 1, most
    while low < high:  # the first whose measure is not below what is wanted
        middle = (low + high) // 2
        low, high = (low, middle) if measure(middle) >= wanted else (middle + 1, high)
    if low > 1 and wanted - measure(low - 1) <= measure(low) - wanted:
        return low - 1
    return low
