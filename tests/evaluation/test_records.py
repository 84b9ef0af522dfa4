import errno
import json
import os
from pathlib import Path

import pytest

from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout
from ivcp.evaluation.records import (
    LineFile,
    Record,
    on_original,
    read_records,
    write_atomically,
)

TILES = ImageLayout(
    (Grid(4, 2, 1, "thumbnail"), Grid(6, 2, 3, "tile", 4, (0.0, 0.25, 1.0, 0.75), by_row=True))
)

RECORD = Record(
    index=3,
    id="é-3",
    task="grounding",
    answer=(1.0, 2.0, 3.0, 4.0),
    prediction="line\nbreak",
    kept=(4, 5),
    reasons={"ivc": (4,), "seed": (5,)},
    images=(TILES, ImageLayout((Grid(20, 1, 2),))),
    vision_ms=1.5,
)


def test_a_record_comes_back_from_its_line(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(RECORD.line() + RECORD.line(), encoding="utf-8")
    assert read_records(path) == [RECORD, RECORD]


def test_a_line_with_one_grid_an_image_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    line = {"index": 0, "id": "a", "task": "yes_no", "images": [[4, 2, 3], [12, 1, 1]]}
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    (record,) = read_records(path)
    assert record.images == (ImageLayout((Grid(4, 2, 3),)), ImageLayout((Grid(12, 1, 1),)))


def test_areas_of_a_padded_image_reach_beyond_it() -> None:
    whole, tiles = on_original(TILES, (0.0, -0.5, 1.0, 1.5)).grids  # twice as wide as high
    assert whole == Grid(4, 2, 1, "thumbnail", area=(0.0, -0.5, 1.0, 1.5))
    assert tiles.area == (0.0, 0.0, 1.0, 1.0)
    assert (tiles.step, tiles.by_row) == (4, True)
    assert on_original(TILES, (0.0, 0.0, 1.0, 1.0)) == TILES


def test_a_line_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    lines = LineFile(tmp_path / "predictions.jsonl")
    lines.append([RECORD.line()])
    assert read_records(tmp_path / "predictions.jsonl") == [RECORD]
    lines.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    lines = LineFile(Path("/dev/full"))
    with pytest.raises(UserError, match=r"^The disk is full: /dev/full could not be written\."):
        lines.append(["text\n"])
    lines.close()


class AlmostFull:
    """A file whose disk has room for ten more bytes."""

    def __init__(self, file) -> None:
        self.file, self.room = file, 10

    def write(self, data) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def fileno(self) -> int:
        return self.file.fileno()

    def close(self) -> None:
        self.file.close()


def test_a_torn_line_is_taken_back_and_whole_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    lines = LineFile(path)
    lines.append(["first\n"])
    lines.file = AlmostFull(lines.file)
    with pytest.raises(UserError, match="disk is full"):
        lines.append(["a line of more than ten bytes\n"])
    lines.close()
    assert path.read_text() == "first\n"


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "metrics.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_system_keep_their_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LineFile(tmp_path / "no" / "folder.jsonl")


def test_the_pinned_fields_are_in_a_line() -> None:
    pinned = {
        "id", "prompt", "answer", "prediction", "parsed", "score", "visual_tokens", "kept_tokens",
        "vision_ms", "language_prefill_ms", "pruning_overhead_ms", "time_to_first_token_ms",
        "decode_ms_per_token", "task", "image_size", "kept", "reasons",
    }  # fmt: skip
    assert pinned <= json.loads(RECORD.line()).keys()
