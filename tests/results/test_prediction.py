import errno
import json
import os
from pathlib import Path

import pytest

from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout
from ivcp.results.files import LineFile, write_atomically
from ivcp.results.prediction import Prediction, read_predictions

TILES = ImageLayout(
    (Grid(4, 2, 1, "thumbnail"), Grid(6, 2, 3, "tile", 4, (0.0, 0.25, 1.0, 0.75), by_row=True))
)

PREDICTION = Prediction(
    index=3,
    id="é-3",
    task="grounding",
    answer=(1.0, 2.0, 3.0, 4.0),
    prediction="line\nbreak",
    score=0.5,
    visual_tokens=10,
    kept=(4, 5),
    reasons={"ivc": (4,), "seed": (5,)},
    images=(TILES, ImageLayout((Grid(20, 1, 2),))),
    vision_ms=1.5,
)


def test_a_record_comes_back_from_its_line(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(PREDICTION.line() + PREDICTION.line(), encoding="utf-8")
    assert list(read_predictions(path)) == [PREDICTION, PREDICTION]


def test_half_an_emoji_can_be_written(tmp_path: Path) -> None:
    line = Prediction(
        index=0, id="a\ud83d", labels={"k": "\ud83d"}, answer="\ud83d", score=1
    ).line()
    assert Prediction.model_validate_json(line).id == "a?"


@pytest.mark.parametrize(
    "answer",
    ["1", ("1", "2", "3", "4"), ("1", "2"), (1.0, 2.0, 3.0, 4.0), (1.0, 2.5), (0.0, 3.0), None],
)
def test_an_answer_keeps_its_kind(answer) -> None:
    prediction = Prediction(index=0, id="a", answer=answer, score=1)
    assert Prediction.model_validate_json(prediction.line()).answer == answer


def test_layouts_that_do_not_hold_the_visual_tokens_are_refused() -> None:
    line = json.loads(PREDICTION.line())
    line["images"][0]["grids"][0]["rows"] = 10**9
    with pytest.raises(ValueError, match="must hold the visual tokens"):
        Prediction.model_validate(line)


def test_areas_of_a_padded_image_reach_beyond_it() -> None:
    whole, tiles = TILES.on_original((0.0, -0.5, 1.0, 1.5)).grids  # twice as wide as high
    assert whole == Grid(4, 2, 1, "thumbnail", area=(0.0, -0.5, 1.0, 1.5))
    assert tiles.area == (0.0, 0.0, 1.0, 1.0)
    assert (tiles.step, tiles.by_row) == (4, True)
    assert TILES.on_original((0.0, 0.0, 1.0, 1.0)) == TILES


def test_a_line_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    lines = LineFile(tmp_path / "predictions.jsonl")
    lines.append([PREDICTION.line()])
    assert list(read_predictions(tmp_path / "predictions.jsonl")) == [PREDICTION]
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
    assert pinned <= json.loads(PREDICTION.line()).keys()
