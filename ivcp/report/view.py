"""`ivcp view RUNS`: the page of finished runs, written and opened in a browser."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ivcp.core.errors import UserError, exit_code
from ivcp.report.gather import Gathered, gather

if TYPE_CHECKING:
    from ivcp.report.gallery import Gallery

PAGE = "report.html"
SAMPLES = 40
WHERE = "only runs with this setting, such as dataset=shapes or pruner=fast*; may be repeated"


def make_page(gathered: Gathered, samples: int = SAMPLES, notes: Sequence[str] = ()) -> bytes:
    """The page of runs.

    Args:
        gathered: The runs.
        samples: Most samples of a dataset and model; 0 for none.
        notes: More that a reader must know.
    """
    from ivcp.report.page import to_html

    entries = gathered.entries
    galleries: list[Gallery] = []
    images: list[bytes] = []
    missing: list[str] = []
    if samples:
        from ivcp.report.gallery import make_galleries  # it takes seconds to import

        galleries, images, missing = make_galleries(entries, samples)
    lines = [*gathered.lines, *gathered.problems, *notes, *missing]
    return to_html(entries, galleries, images, lines, f"{gathered.summary}.").encode()


def view(runs: Sequence[Path], out: Path, where: Sequence[str], samples: int, show: bool) -> None:
    """Write the page and open it.

    Raises:
        UserError: No run could be read, or the page cannot be written.
    """
    if samples < 0:
        raise UserError(f"--samples must be at least 0; got {samples}.")
    gathered = gather(runs, where=where)
    data, path = make_page(gathered, samples), out / PAGE
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"The page cannot be written to {out}: {error}.") from error
    opened = show and webbrowser.open(path.resolve().as_uri())
    hint = "" if opened or not show else "; no browser is here: copy the file, it is complete"
    print(f"{gathered.summary}; {path} has {len(data) / 1e6:.1f} MB{hint}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="ivcp view",
        description="Look at finished runs in a browser: tables, plots, and samples with the "
        "tokens that each method kept. The page is one file that needs no network.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or parents of them")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for the page (default: report)"
    )
    parser.add_argument("--where", action="append", default=[], metavar="NAME=VALUE", help=WHERE)
    parser.add_argument(
        "--samples",
        type=int,
        default=SAMPLES,
        help=f"most samples of each dataset and model (default: {SAMPLES}; 0 for none)",
    )
    parser.add_argument(
        "--no-browser", dest="show", action="store_false", help="write the page and open nothing"
    )
    options = vars(parser.parse_args(arguments))
    return exit_code(lambda: view(**options))
