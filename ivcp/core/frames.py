"""The states of a video frame by frame."""

from __future__ import annotations

from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.view import View


def frame_states(view: View) -> Tensor:
    """(F, N, C) float32 hidden states of the `F` frames of a complete video, `N` tokens each.

    An image is a single frame, with all of its tiles.

    Raises:
        UserError: The frames have different sizes.
    """
    frames = view.image.frames
    if len(sizes := {count for _, count in frames}) > 1:
        raise UserError(
            "Frames can be compared if all have the same number of tokens; these have "
            f"{', '.join(map(str, sorted(sizes)))}: use budget_over=video, or another pruner."
        )
    states = view.hidden().float()
    return states.view(len(frames), -1, states.shape[-1])
