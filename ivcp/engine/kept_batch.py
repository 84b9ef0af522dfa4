"""Applies the selections of a batch: a fixed number of operations, however many its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from ivcp.core.selection import Selection
from ivcp.core.transfer import to_device
from ivcp.engine.sample_tokens import MERGED, SampleTokens


class KeptBatch:
    """Which of their remaining tokens the samples of a batch keep, in the new order.

    Args:
        tokens: (N',) indices into the remaining tokens of all samples, one sample behind the other.
        lengths: Tokens that each sample keeps.
    """

    def __init__(self, tokens: Tensor, lengths: Sequence[int]) -> None:
        self.tokens, self.lengths = tokens, list(lengths)
        self.width = max(self.lengths)

    def of(self, rows: Sequence[Tensor]) -> Tensor:
        """(N',) what the kept tokens have, given (N,) of each sample's remaining tokens."""
        return torch.cat(list(rows)).to(self.tokens.device)[self.tokens]

    def split(self, values: Tensor) -> list[Tensor]:
        """(N',) values as one view for each sample."""
        return list(torch.split(values, self.lengths))

    def padded(self, values: Tensor) -> Tensor:
        """(B, P) the (N',) values, padded in front with each row's first value."""
        if self.real is None:
            return values.view(len(self.lengths), -1)
        return values[self._slots]

    @cached_property
    def real(self) -> Tensor | None:
        """(B, P) False at padding, or None if all rows are equally long."""
        if min(self.lengths) == self.width:
            return None
        return to_device(self._behind >= 0, self.tokens.device)

    @property
    def _behind(self) -> Tensor:
        """(B, P) number of each slot among the tokens of its row, negative at padding."""
        pads = self.width - torch.tensor(self.lengths)
        return torch.arange(self.width) - pads[:, None]

    @cached_property
    def _slots(self) -> Tensor:
        """(B, P) index of each slot into the kept tokens of all samples."""
        starts = torch.tensor(_starts(self.lengths))
        return to_device(self._behind.clamp_min(0) + starts[:, None], self.tokens.device)


def apply_selections(
    samples: Sequence[SampleTokens], selections: Sequence[Sequence[Selection]], names: list[str]
) -> KeptBatch:
    """Keep the selected tokens and all text of each sample; columns and origin stay as they are.

    Merged tokens of an image come behind its last remaining token, or before its first.

    Args:
        samples: The samples.
        selections: One for each image of each sample.
        names: The list of reasons; new reasons are added to it.
    """
    images = [(row, image) for row, sample in enumerate(samples) for image in sample.images]
    answers = [selection for answer in selections for selection in answer]
    merging = [number for number, answer in enumerate(answers) if answer.merged_at is not None]
    merged_at = [at for at in (answers[number].merged_at for number in merging) if at is not None]
    device = samples[0].text.device
    # All samples stand one behind the other: first their text, then what images keep, then what
    # they merge.
    texts = [sample.text for sample in samples]
    if not images:
        lengths = [len(sample) for sample in samples]
        return KeptBatch(torch.arange(sum(lengths), device=device), lengths)
    kept = [answer.keep for answer in answers]
    pieces = [*texts, *kept, *merged_at]
    sizes = [len(piece) for piece in pieces]
    numbers = [*range(len(images)), *merging]  # the image of each piece behind the texts
    rows = [*range(len(samples)), *(images[number][0] for number in numbers)]
    before = _starts(len(sample) for sample in samples)
    after = [0] * len(samples)
    for row, size in zip(rows, sizes, strict=True):
        after[row] += size
    of_image = _starts(len(image.index) for _, image in images)
    chosen = torch.cat([*kept, *merged_at])
    chosen = _shifted(chosen, [of_image[number] for number in numbers], sizes[len(samples) :])
    ranks = torch.cat([image.ranks for _, image in images])[chosen]
    index = torch.cat([image.index for _, image in images])[chosen]
    tokens = _shifted(torch.cat([*texts, ranks]), [before[row] for row in rows], sizes)
    # The new order is a sort by keys. A token's key is twice its index, so the odd keys between
    # two tokens are free for the merged ones. The sort is stable: merged tokens with the same
    # key stay in the order of the selection.
    keys = 2 * tokens
    start = len(keys) - sum(map(len, merged_at))
    for number, at in zip(merging, merged_at, strict=True):
        row, image = images[number]
        middle, stop = start + answers[number].merged_before, start + len(at)
        if len(at):
            keys[start:middle] = 2 * (image.ranks.amin() + before[row]) - 1
            keys[middle:stop] = 2 * (image.ranks.amax() + before[row]) + 1
        start = stop
    order = keys.sort(stable=True).indices
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=device)
    starts = _starts(after)
    place = _shifted(place, [-starts[row] for row in rows], sizes)
    new_ranks = torch.split(place, sizes)
    new_index = torch.split(index, sizes[len(samples) :])
    reasons = _reasons(samples, answers, chosen[: len(chosen) - sum(map(len, merged_at))], names)
    for sample, text in zip(samples, new_ranks, strict=False):
        sample.text = text
    for number, (_, image) in enumerate(images):
        image.ranks, image.index = new_ranks[len(samples) + number], new_index[number]
        image.reasons = reasons[number]
    for piece, number in enumerate(merging, len(images)):
        image, merged = images[number][1], new_index[piece]
        image.ranks = torch.cat([image.ranks, new_ranks[len(samples) + piece]])
        image.index = torch.cat([image.index, merged])
        why = torch.full_like(merged, names.index(MERGED), dtype=torch.uint8)
        image.reasons = torch.cat([image.reasons, why])
    return KeptBatch(tokens[order], after)


def _starts(lengths: Iterable[int]) -> list[int]:
    """Where each of several pieces starts, one behind the other."""
    return [0, *accumulate(lengths)][:-1]


def _shifted(values: Tensor, shifts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """(N,) values, each piece of so many sizes plus its shift."""
    if not any(shifts):
        return values
    by_token = torch.tensor(shifts).repeat_interleave(torch.tensor(sizes))
    return values + to_device(by_token, values.device)


def _reasons(
    samples: Sequence[SampleTokens], answers: Sequence[Selection], chosen: Tensor, names: list[str]
) -> list[Tensor]:
    """For each image, (K,) reasons of its kept tokens.

    Args:
        samples: The samples.
        answers: The selection of each image.
        chosen: Indices of the kept tokens into the current tokens of all images.
        names: The list of reasons; new reasons are added to it.
    """
    sizes = [len(answer.keep) for answer in answers]
    earlier = torch.cat([image.reasons for sample in samples for image in sample.images])[chosen]
    kinds = {None if answer.reasons is None else tuple(answer.reasons) for answer in answers}
    if len(kinds) > 1:  # images have reasons of different kinds
        return [
            _with_reasons(before, answer.reasons, names)
            for before, answer in zip(torch.split(earlier, sizes), answers, strict=True)
        ]
    (words,) = kinds
    masks = (
        None
        if words is None
        else {
            word: torch.cat([(answer.reasons or {})[word] for answer in answers]) for word in words
        }
    )
    return list(torch.split(_with_reasons(earlier, masks, names), sizes))


def _with_reasons(earlier: Tensor, masks: Mapping[str, Tensor] | None, names: list[str]) -> Tensor:
    """(K,) numbers of reasons; a selection without reasons leaves the earlier ones."""
    if masks is None:
        return earlier
    reasons = torch.zeros_like(earlier)
    for name, mask in masks.items():
        if name not in names:
            names.append(name)
        reasons = reasons.masked_fill(mask, names.index(name))
    return reasons
