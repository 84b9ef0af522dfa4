"""What an earlier start of a run left, and what of it may be used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ivcp.core.errors import UserError
from ivcp.core.printable import whole
from ivcp.evaluation.data import ReadableItems, unfinished, unreadable_id
from ivcp.evaluation.job import Job
from ivcp.evaluation.trainer import launches_workers
from ivcp.results.comparability import settings
from ivcp.results.load import ROOTS
from ivcp.results.prediction import Prediction
from ivcp.results.provenance import identity_of
from ivcp.results.run_folder import find_same
from ivcp.results.schema import Results

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Earlier:
    """What an earlier start of a run left.

    Attributes:
        predictions: Answers of finished batches.
        finished: Results of the run, if it had finished.
        stands: Whether these results stand as they are, and lie in the run's folder.
    """

    predictions: Sequence[Prediction] = ()
    finished: Results | None = None
    stands: bool = False

    def notes(self, total: int) -> tuple[str, ...]:
        """What a reader of the times of `total` samples must know."""
        if not self.predictions or self.finished is not None:
            return ()
        return (
            f"An interrupted run went on: {len(self.predictions):,} of {total:,} answers were "
            "there already; rates are those of the others.",
        )


def take_over(job: Job) -> Earlier:
    """Carry finished batches of an earlier start over, and make the folder this run's.

    Raises:
        UserError: The folder holds answers that would be lost, or answers of other samples.
    """
    resume, folder, parts = job.settings.resume, job.folder, job.parts
    identity = identity_of(parts.config, parts.model, parts.dataset)
    source = folder.resumable(resume, identity)
    if source is None and resume is True:
        source = find_same(identity, folder, ROOTS)
        if source is None:
            log.warning("resume=true found nothing to resume: the run starts from the beginning.")
    answers = [] if source is None else source.answers()
    for prediction in answers:
        if not _is_of(prediction, job.items):
            raise UserError(
                f"The answer with the index {prediction.index} and the id {prediction.id} in "
                f"{source and source.path} is of no sample of this dataset; nothing was changed. "
                "Move the folder away, or choose another with hydra.run.dir=FOLDER."
            )
    todo = unfinished(job.batches, {prediction.index for prediction in answers})
    finished = source.results() if source and not todo else None
    if source and finished and _same_judge(finished, job) and launches_workers(job.trainer):
        folder.copy_from(source)
        return Earlier(finished=finished, stands=True)
    open_indices = {index for batch in todo for index in batch}
    usable = [prediction for prediction in answers if prediction.index not in open_indices]
    predictions = [prediction.with_rule_score() for prediction in usable]  # whoever judged since
    folder.carry_over(predictions)
    folder.declare(identity)
    return Earlier(predictions, finished)


def _is_of(prediction: Prediction, items: ReadableItems) -> bool:
    """Whether a prediction is of the sample that its index names."""
    index = prediction.index
    if index >= len(items):
        return False
    return prediction.id in (unreadable_id(index), whole(items.sample_id(index)))


def _same_judge(finished: Results, job: Job) -> bool:
    """Whether a finished run had the judge of this one; another may score its answers."""
    judges = [settings(config, ("judge",)) for config in (finished.run.config, job.parts.config)]
    return judges[0] == judges[1]
