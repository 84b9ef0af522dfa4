"""A table as CSV, Markdown, LaTeX, and on screen."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table as ScreenTable
from rich.text import Text

from ivcp.core.printable import printable
from ivcp.report.columns import UNKNOWN, Column, Where
from ivcp.report.escapes import csv_text, latex, markdown
from ivcp.report.tables import Table

GAP = 2  # characters between columns on screen
LATEX_HEAD = "% \\usepackage{booktabs,graphicx}\n"
LATEX_LONGEST = 100
"""Most characters of a cell; TeX measures no line of more than 5 metres."""
LATEX_NOTE = "Best of a budget in bold, second underlined"
MOST_FLOATS = 12
"""Tables between two page breaks; LaTeX holds no more than 18 that found no page."""
LATEX_RANKS = ("{}", "\\textbf{{{}}}", "\\underline{{{}}}")
LATEX_FIT = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
"""Makes a table smaller that is wider than the page."""


def to_csv(table: Table) -> str:
    """The raw values; an empty cell is a number that is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([csv_text(column.name) for column in table.columns])
    for line in table.lines:
        writer.writerow([csv_text(v) if isinstance(v, str) else v for v in line.values])
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, under its title; the best of a budget is bold."""
    lines = [
        ["<br>".join(map(markdown, column.heading.split("\n"))) for column in table.columns],
        ["---" if column.words else "---:" for column in table.columns],
        *(list(map(_markdown_cell, line.cells, line.ranks)) for line in table.lines),
    ]
    title = f"## {markdown(table.title)}\n\n" if table.title else ""
    return title + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _markdown_cell(cell: str, rank: int) -> str:
    text = markdown(cell, len(cell))
    return f"**{text}**" if rank == 1 else text


def to_latex(tables: Sequence[Table]) -> str:
    """The tables as floats with booktabs; the best of a budget is bold, the second underlined."""
    return LATEX_HEAD + "".join(
        ("" if number % MOST_FLOATS or not number else "\n\\clearpage\n")
        + _latex_float(table, number)
        for number, table in enumerate(tables)
    )


def _latex_float(table: Table, number: int) -> str:
    kinds = "".join("l" if column.words else "r" for column in table.columns)
    lines = []
    for line in table.lines:
        cells = map(_latex_cell, line.cells, table.columns, line.ranks)
        rule = "\\midrule\n" if line.ruled else ""
        lines.append(f"{rule}{_latex_line(cells)}")
    head = _latex_line(_latex_heading(column.heading) for column in table.columns)
    body = "\n".join(["\\toprule", head, "\\midrule", *lines, "\\bottomrule"])
    caption = latex(table.title.replace(" · ", ", "))
    ranked = any(rank for line in table.lines for rank in line.ranks)
    note = latex(table.note)
    caption = ". ".join(filter(None, (caption, LATEX_NOTE if ranked else "", note)))
    return (
        f"\n\\begin{{table*}}\n\\caption{{{caption}.}}\n\\label{{tab:ivcp-{number + 1}}}\n"
        "\\centering\\scriptsize\n"
        f"\\setlength{{\\tabcolsep}}{{3pt}}\n{LATEX_FIT}\n\\begin{{tabular}}{{{kinds}}}\n{body}\n"
        "\\end{tabular}}\n\\end{table*}\n"
    )


def _latex_line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_heading(heading: str) -> str:
    lines = [latex(line, LATEX_LONGEST) for line in heading.split("\n")]
    return lines[0] if len(lines) == 1 else "\\shortstack[r]{" + "\\\\".join(lines) + "}"


def _latex_cell(cell: str, column: Column, rank: int) -> str:
    """A cell; in numbers, a hyphen is a minus, and alone a dash."""
    if column.words:
        return latex(cell, LATEX_LONGEST)
    text = "--" if cell == UNKNOWN else latex(cell).replace("-", "$-$")
    return LATEX_RANKS[rank].format(text)


def to_screen(tables: Sequence[Table], width: int) -> Group:
    """The tables, each in parts no wider than the screen.

    Args:
        tables: The tables.
        width: Characters of a line.
    """
    screens = []
    for table in tables:
        method = sum(Where.GROUP in column.where for column in table.columns)
        widths = [GAP + _least_width(table, number) for number in range(len(table.columns))]
        for columns in fitting(widths, method, width):  # those of the method stand in each
            screens.append(_screen_table(table, columns))
    return Group(*screens)


def fitting(widths: Sequence[int], repeated: int, width: int) -> list[list[int]]:
    """Indices of the columns of each part.

    Args:
        widths: Characters of each column, with the gap behind it.
        repeated: How many of the first columns stand in every part.
        width: Characters of a line.

    >>> fitting([5, 4, 4, 4], 1, 14), fitting([5, 4, 4, 4], 1, 20)
    ([[0, 1, 2], [0, 3]], [[0, 1, 2, 3]])
    """
    parts: list[list[int]] = []
    room = 0
    for index in range(repeated, len(widths)):
        if room < widths[index] or not parts:
            parts.append([*range(repeated)])
            room = width - sum(widths[:repeated])
        parts[-1].append(index)
        room -= widths[index]
    return parts


def _least_width(table: Table, index: int) -> int:
    """Characters of the longest line of a column, or of its longest word where it may wrap."""
    column = table.columns[index]
    texts = [column.heading, *(printable(line.cells[index]) for line in table.lines)]
    lines = (text.split() if column.wraps else text.split("\n") for text in texts)
    return max(cell_len(line) for text in lines for line in text)


def _screen_table(table: Table, columns: Sequence[int]) -> ScreenTable:
    screen = ScreenTable(
        title=Text(printable(table.title)),
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    for index in columns:
        column = table.columns[index]
        screen.add_column(
            Text(column.heading),
            justify="left" if column.words else "right",
            no_wrap=not column.wraps,
            min_width=_least_width(table, index) if column.wraps else None,
        )
    for line in table.lines:
        if line.ruled:
            screen.add_section()
        cells = [Text(printable(line.cells[index])) for index in columns]
        screen.add_row(*cells, style="bold" if line.unpruned else None)
    return screen
