"""Small pieces of HTML, each escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape


def tag(name: str, *inside: str, **attributes: str) -> str:
    """An element around finished HTML; `class_` is written `class`.

    >>> tag("p", escape("a < b"), class_="note")
    '<p class="note">a &lt; b</p>'
    """
    told = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{told}>{''.join(inside)}</{name}>"


def text(name: str, words: str, **attributes: str) -> str:
    """An element around plain text."""
    return tag(name, escape(words), **attributes)


def image(data: bytes, kind: str, words: str) -> str:
    """A picture that is part of the page.

    Args:
        data: The file.
        kind: "png" or "jpeg".
        words: What it shows, for those who do not see it.
    """
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{escape(words)}">'


def figure(data: bytes, kind: str, caption: str) -> str:
    """A picture with its caption."""
    return tag("figure", image(data, kind, caption), text("figcaption", caption))


def folded(title: str, *inside: str, open_: bool = False) -> str:
    """Finished HTML behind a title that opens it."""
    start = "<details open>" if open_ else "<details>"
    return f"{start}{text('summary', title)}{''.join(inside)}</details>"


def table(
    head: Sequence[str],
    lines: Iterable[tuple[str, Sequence[str]]],
    words: Sequence[bool],
) -> str:
    """A table that scrolls sideways where there is no room.

    Args:
        head: Headings.
        lines: Class of each line ("" for none), and its cells.
        words: Whether each column holds words, which stand to the left.
    """
    classes = ["words" if word else "" for word in words]
    titles = "".join(_cell("th", name, kind) for name, kind in zip(head, classes, strict=True))
    rows = "".join(
        (f'<tr class="{style}">' if style else "<tr>")
        + "".join(_cell("td", cell, kind) for cell, kind in zip(cells, classes, strict=True))
        + "</tr>"
        for style, cells in lines
    )
    head_row = f"<thead><tr>{titles}</tr></thead>"
    return f'<div class="wide"><table>{head_row}<tbody>{rows}</tbody></table></div>'


def pairs(told: Mapping[str, str]) -> str:
    """Names and values."""
    return tag("dl", *(text("dt", key) + text("dd", value) for key, value in told.items()))


def _cell(name: str, words: str, kind: str) -> str:
    start = f'<{name} class="{kind}">' if kind else f"<{name}>"
    return f"{start}{escape(words)}</{name}>"
