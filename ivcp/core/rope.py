"""How close the rotary rotation at a position is to the identity, and how close to 90 degrees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import Grid
from ivcp.core.parts import parts_of
from ivcp.core.selection import ranks
from ivcp.core.transfer import to_device
from ivcp.core.view import View


def rotation_scores(positions: Tensor, inverse_frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine `V(m)` and mean sine `U(m)` of the rotary angles at each position.

    With several position axes (M-RoPE) the mean runs over all frequencies of every axis, not over
    the sections that attention applies. Source: IVC-Prune (arXiv 2602.03060), Algorithm 1.

    Args:
        positions: (A, V) position ids, one row an axis (1 for RoPE, 3 for M-RoPE).
        inverse_frequencies: (D / 2,) rotary frequencies theta.

    Returns:
        Two float32 tensors (V,) with values in [-1, 1].

    >>> import torch
    >>> cos, sin = rotation_scores(torch.tensor([[0, 1]]), torch.tensor([1.0]))
    >>> [round(x, 4) for x in (*cos.tolist(), *sin.tolist())]
    [1.0, 0.5403, 0.0, 0.8415]
    """
    angles = positions[..., None].float() * inverse_frequencies.float()  # (A, V, D / 2)
    return angles.cos().mean(dim=(0, 2)), angles.sin().mean(dim=(0, 2))


def plain_frequencies(base: float, count: int) -> Tensor:
    """(count,) float32 rotary frequencies of a base, unscaled, on the CPU.

    >>> plain_frequencies(100.0, 2).tolist()
    [1.0, 0.10000000149011612]
    """
    # in the steps of transformers, so that a model's own base gives the model's own bits
    return 1.0 / base ** (torch.arange(count).float() * 2 / (2 * count))


def default_frequencies(config: Any) -> Tensor:
    """(D / 2,) float32 rotary frequencies of a language model's configuration, on the CPU.

    Args:
        config: A configuration of transformers, with `rope_parameters`.

    Raises:
        UserError: The frequencies are scaled, so that the model itself has to be asked.
    """
    rope: Mapping[str, Any] = config.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "mrope"):
        raise UserError(
            f"Rotary frequencies of the type {kind!r} are scaled, and are not computed from a "
            "configuration: use a model with plain ones."
        )
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return plain_frequencies(rope["rope_theta"], width // 2)


def grid_positions(start: int, grid: Grid) -> Tensor:
    """(3, V) position ids of M-RoPE of an image of one grid: time, row and column.

    Args:
        start: Position id at which the image begins.
        grid: The image's tokens.

    >>> from ivcp.core.layout import Grid
    >>> grid_positions(4, Grid(0, 2, 2)).tolist()
    [[4, 4, 4, 4], [4, 4, 5, 5], [4, 5, 4, 5]]
    """
    rows = torch.arange(grid.rows).repeat_interleave(grid.columns)
    columns = torch.arange(grid.columns).repeat(grid.rows)
    return start + torch.stack([torch.zeros_like(rows), rows, columns])


def check_rope_base(base: float | None) -> None:
    """Check the base of rotary frequencies for scores.

    Raises:
        UserError: It is no number above 1.
    """
    if base is not None and not 1 < base < math.inf:
        raise UserError(
            "rope_base must be a number above 1, such as 10000, or null for the model's own; "
            f"got {base!r}."
        )


def ivc_rank(view: View, rope_base: float | None = None, offset: int = 0) -> Tensor:
    """(V,) float32 rank of each current token as an IVC token of its image; the best rank is 0.

    The largest mean cosine and the largest mean sine share rank 0, the second largest rank 1, and
    so on. Each reference group (`ImageLayout.reference_groups`) is ranked by itself; with several
    groups, ranks are fractions of the group's size, so that all give the same fraction of tokens.

    Args:
        view: The image.
        rope_base: Base of the rotary frequencies; None takes the model's frequencies.
        offset: Places by which all positions are shifted.
    """
    frequencies = view.inverse_frequencies()
    if rope_base is not None:
        unscaled = plain_frequencies(rope_base, len(frequencies))
        frequencies = to_device(unscaled, frequencies.device)
    cosine, sine = rotation_scores(view.positions() + offset, frequencies)
    parts = parts_of(view)
    rank = torch.minimum(ranks(cosine, parts.groups), ranks(sine, parts.groups)).float()
    if len(parts.groups) > 1:
        sizes = torch.tensor(parts.sizes)
        rank = rank / to_device(sizes.repeat_interleave(sizes), rank.device)
    return rank
