"""Texts of runs, models and files as data: nothing in them is markup, wherever they are written."""

from __future__ import annotations

import re
import unicodedata

from ivcp.core.printable import LONGEST, printable

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""

MARKDOWN = re.compile(
    r"[\\`*#|$~]|(?<!\w)_|_(?!\w)|](?=[(\[:])|<(?=[a-zA-Z/!?])|&(?=#?\w+;)"
    r"|:(?=//)|(?<=www)\.|(?<=\w)@(?=[\w-]+\.[\w.-]*[a-zA-Z])"
)
"""What Markdown or HTML would take for markup, an address or a formula."""
MARKDOWN_START = re.compile(r"^(\d{1,9}(?=[.)])|(?=[-+=>]))")
"""What at the start of a line would make a list, a quotation or a heading of it."""

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "{''}",
    "[": "{[}", "]": "{]}",  # behind \\ they would be an argument
    "·": r"\textperiodcentered{}", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}",
    "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "\u2010": "-",
    "\u2013": "--", "\u2014": "---", "\u2018": "`", "\u2019": "'", "\u201c": "``", "\u201d": "''",
    "\u2212": "$-$", "\u00d7": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$",
    "≈": r"$\approx$", "→": r"$\to$", "°": r"$^\circ$", "\u03b1": r"$\alpha$", "β": r"$\beta$",
    "\u03b3": r"$\gamma$", "δ": r"$\delta$", "θ": r"$\theta$", "λ": r"$\lambda$", "μ": r"$\mu$",
    "π": r"$\pi$", "\u03c3": r"$\sigma$", "τ": r"$\tau$",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
UNPRINTABLE = "?"
"""Stands in LaTeX for a character that pdflatex does not have."""


def csv_text(text: str) -> str:
    """A text that no spreadsheet takes for a formula.

    >>> csv_text("=1+1"), csv_text("a=1")
    ("'=1+1", 'a=1')
    """
    guarded = f"'{text}" if text.startswith(FORMULA) else text
    return printable(guarded, len(guarded))


def markdown(text: str, longest: int = LONGEST) -> str:
    r"""A text in GitHub's Markdown.

    >>> print(markdown("a|b <b>"))
    a\|b &lt;b>
    """
    entities = {"<": "&lt;", "&": "&amp;"}
    return MARKDOWN.sub(lambda m: entities.get(m[0], f"\\{m[0]}"), printable(text, longest))


def markdown_line(text: str, longest: int = LONGEST) -> str:
    r"""A text as a paragraph in GitHub's Markdown.

    >>> print(markdown_line("- a"), markdown_line("1. *b*"))
    \- a 1\. \*b\*
    """
    return MARKDOWN_START.sub(r"\1\\", markdown(text, longest).strip())


def latex(text: str, longest: int = LONGEST) -> str:
    r"""A text that pdflatex prints, white space as one space; "?" for what it cannot print.

    >>> latex("50 %_a\n[b] é 猫")
    "50 \\%\\_a {[}b{]} \\'{e} ?"
    """
    pieces: list[str] = []
    for character in unicodedata.normalize("NFKD", " ".join(printable(text, longest).split())):
        if character in LATEX:
            pieces.append(LATEX[character])
        elif character.isascii():
            pieces.append(character)
        elif not unicodedata.combining(character):
            pieces.append(UNPRINTABLE)
        elif character in ACCENTS and pieces and pieces[-1].isalpha() and len(pieces[-1]) == 1:
            pieces[-1] = f"\\{ACCENTS[character]}{{{pieces[-1]}}}"
    return "".join(pieces)
