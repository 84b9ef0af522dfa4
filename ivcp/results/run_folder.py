"""The folder of a run: which files are the run's, what state it is in, what may be replaced.

    fresh ------ declare ---> running ------- finish ---> finished
                                 | killed                    | resume=true and another judge,
                                 v                           | or the same settings once more
    running <-- resume=true -- interrupted                   v
                                           running, with the finished results in before/

Nothing that was not understood is ever removed: a folder whose `run.json` is absent or damaged
while answers lie beside it is refused, and a damaged `metrics.json` is set aside.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from ivcp.core.errors import UserError
from ivcp.core.lock import alone
from ivcp.results.comparability import differing
from ivcp.results.files import full_disk_explained, write_atomically
from ivcp.results.load import BEFORE, METRICS, PREDICTIONS, read_results
from ivcp.results.prediction import Prediction, read_predictions
from ivcp.results.schema import Results

Identity = dict[str, str]
"""Each thing that decides the answers of a run, by a name that a reader knows."""

RUN = "run.json"
"""What the run is that a folder's answers belong to."""
CARRIED = "predictions.earlier.jsonl"
"""Answers of an interrupted run, while it goes on."""
OURS = re.compile(r"predictions(\.\d+|\.earlier)?\.jsonl")
"""Names of the files of answers; others, such as a user's copies, are never touched."""
PICTURES = "pictures"

CODE = ("code of ivcp", "version of ")
"""Beginnings of the names in an identity that are no settings."""
ELSEWHERE = "choose another folder with hydra.run.dir=FOLDER"


class RunFolder:
    """The files of one run.

    Args:
        path: The folder, which exists.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damaged: set[Path] = set()  # files of answers with lines that are no predictions

    def answer_files(self) -> list[Path]:
        """Files of answers, those of an earlier start of the run first."""
        names = [path for path in self.path.iterdir() if OURS.fullmatch(path.name)]
        return sorted(names, key=lambda path: (path.name != CARRIED, path.name))

    def answers(self) -> list[Prediction]:
        """All answers that are there, each sample once, in dataset order.

        Raises:
            UserError: A file of answers cannot be read.
        """
        samples: dict[int, Prediction] = {}
        for path in self.answer_files():
            for prediction in read_predictions(path):
                if isinstance(prediction, Prediction):
                    samples.setdefault(prediction.index, prediction)
                elif prediction.endswith(b"\n"):  # a torn last line has no end
                    self.damaged.add(path)
        return [samples[index] for index in sorted(samples)]

    def identity(self) -> Identity | None:
        """What the run in the folder is; None for a folder without a run.

        Raises:
            UserError: That cannot be read, though there are answers.
        """
        path = self.path / RUN
        try:
            identity = json.loads(path.read_bytes())
            if isinstance(identity, dict) and identity:
                return {str(name): str(value) for name, value in identity.items()}
            reason = "is damaged"
        except FileNotFoundError:
            if not self.answer_files() and not (self.path / METRICS).exists():
                return None
            reason = "is missing"
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
        except (ValueError, RecursionError):
            reason = "is damaged"
        raise UserError(
            f"{path} {reason}, so nobody knows whose answers lie beside it; nothing was changed. "
            f"Restore it, move the folder away, or {ELSEWHERE}."
        )

    def results(self) -> Results | None:
        """The results of a finished run; None if it has not finished, or they are damaged."""
        if not (self.path / PREDICTIONS).is_file():
            return None
        with contextlib.suppress(UserError):
            return read_results(self.path / METRICS)
        return None

    def resumable(self, resume: bool | str, identity: Identity) -> RunFolder | None:
        """The folder whose answers a run may use, after all checks; None for none.

        Args:
            resume: False for none; True for this folder; or another folder.
            identity: This run's.

        Raises:
            UserError: The run would replace answers of another run, or of one that was interrupted,
                or there is something that is not understood.
        """
        other = None if isinstance(resume, bool) else RunFolder(resume)
        if other and other.path.resolve() == self.path.resolve():
            other, resume = None, True
        existing, answers, results = self.identity(), self.answers(), self.results()
        if existing is not None and (results or answers):
            names = differing(existing, identity)
            setting = [name for name in names if not name.startswith(CODE)]
            if setting or (names and resume is True):
                raise UserError(_another_run(self.path, existing, identity, names))
            if resume is not True and results is None:
                raise UserError(
                    f"{self.path} holds answers of a run that did not finish; go on with "
                    f"resume=true, or {ELSEWHERE}."
                )
            if resume is True:
                return self
        if other is None:
            return None
        theirs = other.identity() if other.path.is_dir() else None
        if theirs is None:
            raise UserError(
                f"resume must be true, false or the folder of a run; {other.path} is none."
            )
        if names := differing(theirs, identity):
            raise UserError(_another_run(other.path, theirs, identity, names))
        return other

    def progress(self) -> tuple[bool, int, float]:
        """How far the run in the folder is, for a choice between several."""
        return self.results() is not None, len(self.answers()), (self.path / RUN).stat().st_mtime

    def carry_over(self, predictions: Sequence[Prediction]) -> None:
        """Take over answers of an earlier run, and make room for new ones.

        Until they are on disk here, nothing of the earlier run is removed. Results that this run
        replaces stay in `before/` until it has finished; damaged files, which the last `answers`
        has found, under another name.
        """
        carried = self.path / CARRIED
        if predictions:
            write_atomically(carried, "".join(map(Prediction.line, predictions)))
            self.damaged.discard(carried)
        if self.results() is not None:
            before = self.path / BEFORE
            before.mkdir(exist_ok=True)
            shutil.copy2(self.path / RUN, before / RUN)
            for name in (PREDICTIONS, METRICS):
                (self.path / name).replace(before / name)
        elif (self.path / METRICS).exists():
            (self.path / METRICS).replace(_free_name(self.path / "metrics.damaged.json"))
        for path in self.answer_files():
            if path in self.damaged:
                path.replace(_free_name(path.with_suffix(".damaged.jsonl")))
            elif path != carried or not predictions:
                path.unlink()

    def copy_from(self, earlier: RunFolder) -> None:
        """Bring the results of a finished run here."""
        if earlier.path == self.path:
            return
        with full_disk_explained(self.path):
            for name in (RUN, PREDICTIONS, METRICS):
                shutil.copy2(earlier.path / name, self.path / name)
            if (earlier.path / PICTURES).is_dir():
                shutil.copytree(earlier.path / PICTURES, self.path / PICTURES, dirs_exist_ok=True)

    def declare(self, identity: Identity) -> None:
        """Say what the run in the folder is."""
        write_atomically(self.path / RUN, json.dumps(identity, indent=2))

    def finish(self, results: Results) -> None:
        """Write the results, and remove those that they replace."""
        write_atomically(self.path / METRICS, results.text())
        shutil.rmtree(self.path / BEFORE, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second run out of the folder; a killed run keeps nobody out.

        Raises:
            UserError: Another run is at work there, or the folder cannot be written.
        """

        def busy() -> NoReturn:
            raise UserError(f"Another run is at work in {self.path}; wait for it, or {ELSEWHERE}.")

        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(alone(self.path / ".lock", busy))
            except OSError as error:
                raise UserError(
                    f"The run's folder {self.path} cannot be written ({error.strerror}); "
                    f"{ELSEWHERE}."
                ) from error
            yield


def find_same(identity: Identity, here: RunFolder, roots: Sequence[Path]) -> RunFolder | None:
    """The same run in another folder: a finished one, else the one with most answers."""
    folders = [RunFolder(path.parent) for root in roots for path in root.glob(f"**/{RUN}")]
    same = [folder for folder in folders if folder.path != here.path and _is(folder, identity)]
    return max(same, key=RunFolder.progress, default=None)


def _is(folder: RunFolder, identity: Identity) -> bool:
    try:
        return folder.identity() == identity
    except UserError:
        return False  # damaged: no answers to take over, but no mistake of this run either


def _another_run(folder: Path, theirs: Identity, ours: Identity, names: Sequence[str]) -> str:
    """Why answers in a folder cannot be used."""
    parts = [
        f"{name} ({theirs.get(name, 'nothing')} there, {ours.get(name, 'nothing')} here)"
        if max(len(theirs.get(name, "")), len(ours.get(name, ""))) < 40
        else name
        for name in names
    ]
    return (
        f"The answers in {folder} are of another run: {'; '.join(parts)}. Use the same settings, "
        f"or {ELSEWHERE}."
    )


def _free_name(path: Path) -> Path:
    """The path, or the first with a number behind its stem that does not exist yet."""
    number, free = 0, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return free
