"""Tables for papers: LaTeX with booktabs, one for each dataset, model and metric.

They hold what fits beside each other on a page: scores, kept tokens, cache, FLOPs and times.
"""

from __future__ import annotations

from collections.abc import Sequence

from ivcp.report.rows import Row
from ivcp.report.table import COLUMNS, by_block, filled

HEAD = "% \\usepackage{booktabs,graphicx}\n"
FIT = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
"""Makes a table smaller that is wider than the page."""
ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "{''}",
        "[": "{[}",  # behind \\ it would open an argument
        "]": "{]}",
        "·": r"\textperiodcentered{}",
    }
)


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is; white space is one space.

    >>> escape("50 %_a\n[b]")
    '50 \\%\\_a {[}b{]}'
    """
    return " ".join(text.split()).translate(ESCAPES)


def to_latex(rows: Sequence[Row]) -> str:
    """The blocks of the table as floats; tasks of a group are left out."""
    return HEAD + "".join(_float(title, block) for title, block in by_block(rows).items())


def _float(title: str, rows: Sequence[Row]) -> str:
    printed = [column for column in COLUMNS if column.paper and not column.shared]
    columns = filled(printed, rows)
    kinds = "".join("l" if column.text else "r" for column in columns)
    lines = []
    for number, row in enumerate(rows):
        if number and row.run.ratio != rows[number - 1].run.ratio:
            lines.append("\\midrule")
        lines.append(_line([_number(column.show(row), column.text) for column in columns]))
    head = _line([_heading(column.heading) for column in columns])
    body = "\n".join(["\\toprule", head, "\\midrule", *lines, "\\bottomrule"])
    caption = escape(title.replace(" · ", ", "))
    return (
        f"\n\\begin{{table*}}\n\\caption{{{caption}}}\n\\centering\\scriptsize\n"
        f"\\setlength{{\\tabcolsep}}{{3pt}}\n{FIT}\n\\begin{{tabular}}{{{kinds}}}\n{body}\n"
        "\\end{tabular}}\n\\end{table*}\n"
    )


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _heading(name: str) -> str:
    """A heading of as many lines as it has."""
    lines = [escape(line) for line in name.split("\n")]
    return lines[0] if len(lines) == 1 else "\\shortstack[r]{" + "\\\\".join(lines) + "}"


def _number(cell: str, text: bool) -> str:
    """A cell; in numbers, a hyphen is a minus, and alone a dash."""
    if text:
        return escape(cell)
    return "--" if cell == "-" else escape(cell).replace("-", "$-$")
