"""A dataset made of the samples that a test gives it."""

from __future__ import annotations

from ivcp.core.types import Sample


class Source:
    """Gives samples, and raises those of them that are exceptions."""

    task = "yes_no"

    def __init__(self, *samples: Sample | Exception, notes: tuple[str, ...] = ()) -> None:
        self.samples, self.notes = samples, notes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if isinstance(sample, Exception):
            raise sample
        return sample
