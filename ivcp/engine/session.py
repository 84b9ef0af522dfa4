"""The results of a session's last prefill."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import PromptLayout
from ivcp.core.strip import joined_frames, strip_parts
from ivcp.core.types import Box
from ivcp.core.video import Clip
from ivcp.engine.prefill import Prefill
from ivcp.engine.prompt import digest
from ivcp.visualize.overlay import draw_overlay


@dataclass
class PrefillResults:
    """The results of one prefill; tensors are copied to the host when they are read."""

    layouts: list[PromptLayout] = field(default_factory=list)
    layer_tokens: list[list[int]] = field(default_factory=list)
    first_pass_tokens: list[list[int]] = field(default_factory=list)
    cache_lengths: list[list[int]] = field(default_factory=list)
    cache_bytes: int = 0
    read_kept: Callable[[], list[tuple[Tensor, list[str]]]] = list
    read_kept_after: Callable[[], list[list[Tensor]]] = list
    read_remaining: Callable[[], list[Tensor]] = list
    read_overhead: Callable[[], float] = float
    kept: list[tuple[Tensor, list[str]]] | None = None


class Session:
    """The results of the last prefill.

    `sample_ids`, `questions`, `visible_areas` and `saved_tokens` may be set for each batch.

    A thread that has run a prefill reads its own results; other threads read the latest ones.

    Attributes:
        sample_ids: Ids of the rows of the next batch; None uses a digest of each prompt.
        questions: The user's question of each row of the next batch, for methods that read it.
        visible_areas: For each sample of the last batch, the area of each of its images that the
            model was shown, as `Encoded` has it; `draw` needs it where images are made square.
        saved_tokens: For each sample of the last batch, tokens that its prompt has not, because its
            images were resized, as `Encoded` has it; `summary` counts them among the dropped.
        layouts: Layout of each sample's prompt.
        kept: For each sample, ascending prompt indices of its kept visual tokens (padding is not
            counted; where the prompt continues a cache, the new text alone is counted).
        reasons: For each sample, why each token was kept, as a word.
        kept_after: `[stage][sample]` the same as `kept` behind each stage.
        remaining: For each sample, prompt indices of all tokens that remain after the last stage,
            in the order of the rows of the model's output (rows are padded on the left).
        layer_tokens: `[layer][sample]` tokens that each layer processed.
        first_pass_tokens: `[layer][sample]` tokens that the first layers processed before that, to
            choose tokens; empty for methods without a first pass.
        cache_lengths: `[layer][sample]` tokens in the KV cache after prefill, without padding; 0 in
            linear layers; empty without a cache.
        cache_bytes: Bytes of the KV cache after prefill, of the complete batch, the states of
            linear layers included.
        overhead_seconds: Time spent on selecting and pruning, of the complete batch.
    """

    def __init__(self, makes_square: bool = False) -> None:
        self.sample_ids: list[str] | None = None
        self.questions: list[str] | None = None
        self.visible_areas: Sequence[Sequence[Box]] | None = None
        self.saved_tokens: Sequence[int] | None = None
        self._makes_square = makes_square
        self._close: Callable[[], None] = lambda: None
        self._of_thread = threading.local()
        self._latest = PrefillResults()

    def on_close(self, close: Callable[[], None]) -> None:
        """Set the function that ends the session."""
        self._close = close

    def close(self) -> None:
        """Stop pruning; results remain readable. A second call does nothing."""
        self._close()
        self._close = lambda: None

    @property
    def _results(self) -> PrefillResults:
        # two threads may use one model: each reads what its own forward pass has done
        results: PrefillResults = getattr(self._of_thread, "results", self._latest)
        return results

    @property
    def layouts(self) -> list[PromptLayout]:
        return self._results.layouts

    @property
    def layer_tokens(self) -> list[list[int]]:
        return self._results.layer_tokens

    @property
    def first_pass_tokens(self) -> list[list[int]]:
        return self._results.first_pass_tokens

    @property
    def cache_lengths(self) -> list[list[int]]:
        return self._results.cache_lengths

    @property
    def cache_bytes(self) -> int:
        return self._results.cache_bytes

    @property
    def kept(self) -> list[Tensor]:
        return [kept for kept, _ in self._kept()]

    @property
    def reasons(self) -> list[list[str]]:
        return [reasons for _, reasons in self._kept()]

    @property
    def kept_after(self) -> list[list[Tensor]]:
        return self._results.read_kept_after()

    @property
    def remaining(self) -> list[Tensor]:
        return self._results.read_remaining()

    @property
    def overhead_seconds(self) -> float:
        return self._results.read_overhead()

    def summary(self) -> list[dict[str, Any]]:
        """What happened to each sample, for `pandas.DataFrame` or to read.

        Bytes of the cache and milliseconds of pruning are those of the batch, divided evenly.
        """
        results, rows = self._results, len(self.layouts)
        overhead, summaries = self.overhead_seconds, []
        saved = self.saved_tokens or [0] * rows
        for row, (layout, kept, reasons) in enumerate(
            zip(results.layouts, self.kept, self.reasons, strict=True)
        ):
            visual = sum(image.length for image in layout.images) + saved[row * len(saved) // rows]
            summaries.append(
                {
                    "prompt_tokens": layout.length + saved[row * len(saved) // rows],
                    "visual_tokens": visual,
                    "kept_tokens": len(kept),
                    "keep_ratio": len(kept) / visual if visual else None,
                    "reasons": dict(Counter(reasons)),
                    "tokens_by_layer": [counts[row] for counts in results.layer_tokens],
                    "first_pass_tokens_by_layer": [
                        counts[row] for counts in results.first_pass_tokens
                    ],
                    "cached_tokens_by_layer": [counts[row] for counts in results.cache_lengths],
                    "kv_cache_bytes": results.cache_bytes / rows,
                    "pruning_overhead_ms": 1000 * overhead / rows,
                }
            )
        return summaries

    def draw(
        self,
        image: Image.Image | Sequence[Image.Image] | Clip,
        *,
        sample: int = 0,
        number: int = 0,
        predicted: Box | None = None,
        title: str = "",
    ) -> Image.Image:
        """The kept tokens of an image of the last prefill, drawn on it.

        Args:
            image: The image that was in the prompt; for a video, one frame for each grid, or its
                clip, of which a few moments are drawn.
            sample: Which sample of the batch.
            number: Which image or video of the sample; where frames are images, the first one of
                the clip.
            predicted: A box in pixels of the image, to be drawn, too.
            title: One sentence above the image.

        Raises:
            UserError: There is no such image, or it is not known what the model was shown of it.
        """
        layouts = self.layouts
        if isinstance(image, str | Path):
            raise UserError(f"image must be an image of PIL; got the path {str(image)!r}: open it.")
        if not (0 <= sample < len(layouts) and 0 <= number < len(layouts[sample].images)):
            raise UserError(
                f"There is no image {number} of sample {sample} in the last prefill; it had "
                f"{[len(layout.images) for layout in layouts]} images in its samples."
            )
        layout, labels = layouts[sample].images[number], None
        if self.visible_areas is not None:
            layout = layout.on_original(self.visible_areas[sample][number])
        elif self._makes_square:
            raise UserError(
                "This model pads or crops images to a square, and the session does not know how: "
                "use ivcp.ask, or set session.visible_areas."
            )
        if isinstance(image, Clip):
            if layout.grids[0].kind != "frame":
                frames = layouts[sample].images[number : number + len(image.frames)]
                layout = joined_frames(frames, [len(frames)])[0]
            image, layout, labels = strip_parts(layout, image)
        tokens = set(layout.tokens.tolist())
        pairs = zip(self.kept[sample].tolist(), self.reasons[sample], strict=True)
        kept = {token: reason for token, reason in pairs if token in tokens}
        return draw_overlay(
            image,
            layout=layout,
            kept=list(kept),
            reasons=list(kept.values()),
            predicted=predicted,
            title=title,
            labels=labels,
        )

    def _kept(self) -> list[tuple[Tensor, list[str]]]:
        results = self._results
        if results.kept is None:
            results.kept = results.read_kept()
        return results.kept

    def record(self, prefill: Prefill) -> None:
        """Take the results of a finished prefill."""
        # the functions hold the samples' indices, not the prefill: it holds hidden states
        samples, names = prefill.samples, prefill.reasons
        kept_after = prefill.kept_after
        self._set(
            PrefillResults(
                layouts=[sample.layout for sample in samples],
                layer_tokens=prefill.counts.layer_tokens,
                first_pass_tokens=prefill.counts.first_pass,
                cache_lengths=prefill.cache_lengths(),
                cache_bytes=prefill.cache_bytes(),
                read_kept=lambda: [sample.kept(names) for sample in samples],
                read_kept_after=lambda: [[_joined(row) for row in rows] for rows in kept_after],
                read_remaining=lambda: [sample.origin.cpu() for sample in samples],
                read_overhead=prefill.clock.seconds,
            )
        )

    def clear(self, layouts: list[PromptLayout]) -> None:
        """Set the results of a prompt without visual tokens."""
        none: list[tuple[Tensor, list[str]]] = [
            (torch.empty(0, dtype=torch.long), []) for _ in layouts
        ]
        remaining = [torch.arange(layout.length) for layout in layouts]
        self._set(PrefillResults(layouts=layouts, kept=none, read_remaining=lambda: remaining))

    def _set(self, results: PrefillResults) -> None:
        self._of_thread.results = self._latest = results

    def id_of(self, row: int, rows: int, tokens: Tensor) -> str:
        """Id of a batch row; rows that `generate` repeats (beams) have their sample's id."""
        if self.sample_ids is None:
            return digest(tokens)
        return _of_row(self.sample_ids, "sample_ids", row, rows)

    def questions_of(self, rows: int) -> Sequence[str] | None:
        """The question of each of `rows` rows, or None if none was set."""
        if self.questions is None:
            return None
        return [_of_row(self.questions, "questions", row, rows) for row in range(rows)]


def _joined(images: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Ascending prompt indices, on the CPU, of the tokens of all images that remain."""
    if not images:
        return torch.empty(0, dtype=torch.long)
    return torch.cat([tokens[index] for tokens, index in images]).sort().values.cpu()


def _of_row(texts: list[str], name: str, row: int, rows: int) -> str:
    if isinstance(texts, str):
        raise UserError(f"{name} must be a list, one text a sample; got the text {texts!r}.")
    if not texts or rows % len(texts):
        raise UserError(
            f"{name} must name each sample of the batch; got {len(texts)} {name.split('_')[-1]} "
            f"for {rows} rows."
        )
    return texts[row * len(texts) // rows]  # `generate` repeats each row for its beams in sequence
