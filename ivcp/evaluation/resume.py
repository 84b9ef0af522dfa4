"""Going on where a run stopped: what is finished, where, and whether it may be used."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ivcp.core.errors import UserError
from ivcp.core.lock import alone
from ivcp.evaluation.baseline import ROOTS
from ivcp.evaluation.identity import Identity, differing
from ivcp.evaluation.plan import Numbers, unfinished
from ivcp.evaluation.records import Record, read_records, told_if_full, write_atomically

RUN = "run.json"
"""What the run is that a folder's answers belong to."""
EARLIER = "predictions.earlier.jsonl"
"""Answers that an interrupted run left, while it goes on."""
FINISHED = "metrics.json"
RESULTS = ("predictions.jsonl", FINISHED)
BEFORE = "before"
"""Folder of the results of a finished run while another one in its place is not finished."""


def answers(folder: Path) -> list[Record]:
    """All whole lines of a folder's answers, each sample once, in dataset order.

    A line that was torn by a kill is left out.
    """
    found: dict[int, Record] = {}
    for path in sorted(folder.glob("predictions*.jsonl")):
        for record in read_records(path):
            found.setdefault(record.index, record)
    return [found[index] for index in sorted(found)]


def earlier_run(
    wanted: bool | str, folder: Path, identity: Identity, roots: Iterable[Path] = ROOTS
) -> Path | None:
    """The folder whose answers may be used.

    Args:
        wanted: False for none; True for this run's folder, else of those below the roots whose run
            is the same a finished one, or the one with most answers; or a folder.
        folder: This run's.
        identity: This run's.
        roots: Where True looks.

    Raises:
        UserError: The folder holds answers of another run, or of an interrupted one that would be
            overwritten.
    """
    own = _told(folder)
    elsewhere = isinstance(wanted, str) and Path(wanted).resolve() != folder.resolve()
    unfinished_here = own is not None and not (folder / FINISHED).exists()
    if (not wanted or elsewhere) and unfinished_here and answers(folder):
        raise UserError(
            f"{folder} holds answers of a run that did not finish; go on with resume=true, or "
            "choose another folder with hydra.run.dir=FOLDER."
        )
    if not wanted:
        return None
    if isinstance(wanted, str):
        told = _told(Path(wanted))
        if told is None:
            raise UserError(f"resume must be true, false or the folder of a run; {wanted} is none.")
        return _same(told, identity, Path(wanted))
    if own is not None:
        return _same(own, identity, folder)
    found = [path.parent for root in roots for path in root.glob(f"**/{RUN}")]
    same = [path for path in found if path != folder and _told(path) == identity]
    return max(same, key=_progress, default=None)


def _progress(folder: Path) -> tuple[bool, int, float]:
    return is_finished(folder), len(answers(folder)), (folder / RUN).stat().st_mtime


def carry_over(earlier: Path | None, folder: Path, batches: Sequence[Numbers]) -> list[Record]:
    """Put the finished batches of an earlier run into this run's folder, and give their records.

    They come with the verdicts of the metric's rule, whoever has graded them since. Until that is
    on disk, nothing of the earlier run is removed. Results that this run replaces stay in a folder
    beside its own until it has finished (`replaced`).
    """
    records: list[Record] = []
    if earlier is not None:
        known = answers(earlier)
        open_ones = {n for batch in unfinished(batches, {r.index for r in known}) for n in batch}
        planned = {number for batch in batches for number in batch}
        records = [r.unjudged() for r in known if r.index in planned - open_ones]
        _copy_pictures(earlier, folder)
    kept = folder / EARLIER
    if records:
        write_atomically(kept, "".join(map(Record.line, records)))
    if is_finished(folder):
        _keep_results(folder)
    for path in folder.glob("predictions*.jsonl"):
        if path != kept or not records:
            path.unlink()
    (folder / FINISHED).unlink(missing_ok=True)
    return records


def is_finished(folder: Path) -> bool:
    """Whether a run has all its results."""
    return all((folder / name).is_file() for name in RESULTS)


def replaced(folder: Path) -> None:
    """Remove the results that a run has replaced."""
    shutil.rmtree(folder / BEFORE, ignore_errors=True)


def copied(earlier: Path, folder: Path) -> dict[str, Any]:
    """Bring a finished run's results into another folder; gives its report."""
    if earlier != folder:
        with told_if_full(folder):
            for name in (RUN, *RESULTS):
                shutil.copy2(earlier / name, folder / name)
            _copy_pictures(earlier, folder)
    return read_report(folder)


def read_report(folder: Path) -> dict[str, Any]:
    """The contents of a finished run's `metrics.json`."""
    report: dict[str, Any] = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
    return report


def declare(folder: Path, identity: Identity) -> None:
    """Say what the run in a folder is."""
    write_atomically(folder / RUN, json.dumps(identity, indent=2))


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a second run out of a folder; a killed run keeps nobody out.

    Raises:
        UserError: Another run is at work there, or the folder cannot be written.
    """

    def busy() -> NoReturn:
        raise UserError(
            f"Another run is at work in {folder}; wait for it, or choose another folder with "
            "hydra.run.dir=FOLDER."
        )

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(folder / ".lock", busy))
        except OSError as error:
            raise UserError(
                f"The run's folder {folder} cannot be written ({error.strerror}); choose another "
                "with hydra.run.dir=FOLDER."
            ) from error
        yield


def _keep_results(folder: Path) -> None:
    before = folder / BEFORE
    before.mkdir(exist_ok=True)
    if (folder / RUN).exists():
        shutil.copy2(folder / RUN, before / RUN)
    for name in RESULTS:
        (folder / name).replace(before / name)


def _copy_pictures(earlier: Path, folder: Path) -> None:
    if earlier != folder and (earlier / "pictures").is_dir():
        shutil.copytree(earlier / "pictures", folder / "pictures", dirs_exist_ok=True)


def _told(folder: Path) -> Identity | None:
    """What the run in a folder is; None if it is not told."""
    try:
        told: Identity = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _same(told: Identity, identity: Identity, folder: Path) -> Path:
    """The folder, if its run is this one."""
    if differences := differing(told, identity):
        raise UserError(
            f"The answers in {folder} are of another run: {'; '.join(differences)}. Use "
            "the same settings, or choose another folder with hydra.run.dir=FOLDER."
        )
    return folder
