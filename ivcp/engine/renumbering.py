"""New positions of kept tokens: without gaps on each axis, or exchanged among each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ivcp.core.errors import UserError
from ivcp.core.pruner import Renumbering
from ivcp.core.selection import random_order
from ivcp.core.transfer import to_device
from ivcp.engine.sample_tokens import ImageTokens, SampleTokens


def check_renumbering(renumbering: Renumbering, cache: Cache | None) -> None:
    """Refuse new positions behind tokens that are stored under their old ones.

    Raises:
        UserError: The cache holds tokens of an earlier turn.
    """
    if isinstance(renumbering, str) and cache is not None and cache.get_seq_length():
        raise UserError(
            f"renumber={renumbering} takes the whole prompt at once, but the KV cache holds tokens "
            "of an earlier turn: begin with an empty cache, or leave renumber out."
        )


def new_positions(
    renumbering: Renumbering,
    positions: Tensor,
    samples: Sequence[SampleTokens],
    make_ids: Sequence[Callable[[], str]],
    width: int,
) -> Tensor:
    """(A, B, P) positions of the remaining tokens; those of padding are 0.

    The last token of a prompt keeps its position, so that decoding goes on as the model counts.

    Args:
        renumbering: "ranks" or "shuffled".
        positions: (A, B, S) positions in layer 0.
        samples: The remaining tokens of each sample.
        make_ids: For each sample, a function that makes its id.
        width: `P`, columns of the current, padded rows.
    """
    positions = positions.to(samples[0].columns.device)
    found = positions.new_zeros(len(positions), len(samples), width)
    for row, (sample, make_id) in enumerate(zip(samples, make_ids, strict=True)):
        own = positions[:, row, sample.entry_columns]  # (A, S)
        if renumbering == "shuffled":
            new = _shuffled(own[:, sample.origin], sample, make_id)
        elif len(own) == 1:  # merged tokens do not stand in the order of their positions
            new = own[:, -1:] - (len(sample) - 1) + _dense_ranks(own[:, sample.origin])
        else:
            new = _ranked(own, sample)
        found[:, row, sample.columns] = new
    return found


def _shuffled(positions: Tensor, sample: SampleTokens, make_id: Callable[[], str]) -> Tensor:
    """(A, N) positions in which the tokens of each image take each other's."""
    positions = positions.clone()
    for image in sample.images:
        order = random_order(f"{make_id()}/{image.layout.start}/shuffled", len(image.ranks))
        positions[:, image.ranks] = positions[:, image.ranks[to_device(order, positions.device)]]
    return positions


def _ranked(own: Tensor, sample: SampleTokens) -> Tensor:
    """(A, N) positions in which images lose the rows, columns and moments that nothing shows.

    On each axis, the remaining tokens take the first of the positions that the image has there.

    Args:
        own: (A, S) original positions of the whole prompt.
        sample: Its remaining tokens.

    Raises:
        UserError: Text stands between the tokens of an image.
    """
    new = own[:, sample.origin]
    closed = own.new_zeros(())  # how far the text behind the images so far moves forward
    for image in sample.images:
        _check_whole(image)
        whole = own[:, image.tokens]
        distinct = torch.zeros_like(whole).scatter_(1, _dense_ranks(whole), whole)
        moved = distinct.gather(1, _dense_ranks(own[:, sample.origin[image.ranks]]))
        gap = whole.amax() - moved.amax()
        if image.layout.stop < own.shape[1]:
            # the library lets the text behind a video begin before the video's last moments
            spatial = whole[1:].amax() - moved[1:].amax()
            gap = torch.where(own[0, image.layout.stop] > whole.amax(), gap, spatial)
        new = torch.where(sample.origin > image.tokens[0], new - gap, new)
        new[:, image.ranks] = moved - closed
        closed = closed + gap
    return new + closed


def _dense_ranks(positions: Tensor) -> Tensor:
    """(A, K) number of smaller values on each axis, equal ones counted once."""
    ascending, order = positions.sort(1)
    steps = torch.nn.functional.pad((ascending.diff(dim=1) > 0).long(), (1, 0)).cumsum(1)
    return torch.empty_like(steps).scatter_(1, order, steps)


def _check_whole(image: ImageTokens) -> None:
    layout = image.layout
    if layout.stop - layout.start != layout.length:
        raise UserError(
            "renumber=ranks takes images whose tokens follow each other, but text stands between "
            "those of this one (a video's time stamps): use renumber=true or leave it out."
        )
