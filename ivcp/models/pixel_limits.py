"""Limits of the pixels of an image, as Qwen's image processors take them."""

from __future__ import annotations

from ivcp.core.errors import UserError


def check_limits(least: int | None, most: int | None, token: int = 1) -> None:
    """Refuse limits between which no image can be.

    Args:
        least: Images with fewer pixels are enlarged; None if not known yet.
        most: Images with more pixels are shrunk; None if not known yet.
        token: Pixels along one visual token.

    Raises:
        UserError: A limit is too small, or they are not in order.
    """
    if least is not None and least < 1:
        raise UserError(f"model.min_pixels must be at least 1; got {least}.")
    if most is not None and most < token**2:
        raise UserError(
            f"model.max_pixels must be at least {token**2}"
            f"{f', the {token} x {token} pixels of one visual token' if token > 1 else ''}; "
            f"got {most}."
        )
    if least is not None and most is not None and least > most:
        raise UserError(
            f"model.min_pixels must be at most model.max_pixels; got {least} and {most} (null "
            "takes the checkpoint's own)."
        )
