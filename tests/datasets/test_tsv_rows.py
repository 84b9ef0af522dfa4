"""Files as pandas and the csv module write them, read as pandas reads them."""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import pickle
import random
from pathlib import Path

import pandas as pd
import pytest
from torch.utils.data import DataLoader

from ivcp.core.errors import UserError
from ivcp.datasets import row_index, tsv_rows
from ivcp.datasets.tsv_rows import RowFile

ROWS = [
    {
        "index": "7",
        "image": "x" * 300_000,
        "question": 'Say "a\tb"\nor\r\nc',
        "A": "NA",
        "B": "0.10",
    },
    {"index": "8", "image": "", "question": "", "A": "None", "B": "nan"},
    {"index": "1000007", "image": "7", "question": "多少\uff1f\u2028\x0b", "A": '"', "B": " "},
    {"index": "q_9", "image": "y" * 64, "question": 'a "b" c', "A": "null", "B": "\u00e9" * 70},
]


@pytest.fixture
def short_cells(monkeypatch):
    """Cells of at most 1,000 characters; the limit is the process's."""
    before = csv.field_size_limit()
    monkeypatch.setattr(row_index, "CELL_LIMIT", 1000)
    yield
    csv.field_size_limit(before)


def write(path: Path, content=ROWS, **options) -> Path:
    pd.DataFrame(content).to_csv(path, sep="\t", index=False, **options)
    return path


def texts(path: Path) -> list[dict[str, str]]:
    """The rows as pandas reads them."""
    frame = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    return frame.to_dict("records")


def read(file: RowFile) -> list[dict[str, str]]:
    return [file[number] for number in range(len(file))]


def index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.index.json")


@pytest.fixture
def path(tmp_path) -> Path:
    return write(tmp_path / "set.tsv")


@pytest.fixture
def no_scan(monkeypatch):
    """Makes it an error to read a whole file."""

    def forbid() -> None:
        monkeypatch.setattr(tsv_rows, "scan", lambda _: pytest.fail("the whole file was read"))

    return forbid


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_cell_is_the_text_that_pandas_reads(tmp_path, quoting, end, encoding) -> None:
    path = write(tmp_path / "set.tsv", quoting=quoting, lineterminator=end, encoding=encoding)
    file = RowFile(path)
    assert read(file) == texts(path) == ROWS
    assert file.columns == ("index", "image", "question", "A", "B")
    assert file.notes == ()


def test_random_cells_are_the_texts_that_pandas_reads(tmp_path) -> None:
    rng = random.Random(0)
    pieces = ["a", "é", "字", '"', '""', "\t", "\n", " ", ",", "'", "\\", "NA"]
    cells = iter(lambda: "".join(rng.choices(pieces, k=rng.randrange(6))), None)
    content = [
        {"index": str(number), "A": next(cells), "B": next(cells), "C": next(cells)}
        for number in range(300)
    ]
    path = write(tmp_path / "set.tsv", content)
    assert read(RowFile(path)) == texts(path) == content


def test_empty_lines_and_a_missing_last_line_break_are_nothing(path) -> None:
    lines = path.read_bytes().replace(b"\n8\t", b"\n\n\r\n8\t").rstrip(b"\n")
    path.write_bytes(lines)
    assert read(RowFile(path)) == texts(path) == ROWS


def test_rows_are_found_by_their_index(path) -> None:
    file = RowFile(path)
    assert [file.find(row["index"]) for row in ROWS] == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"set\.tsv has no row of the index 9"):
        file.find("9")


def test_short_images_are_known_without_reading_the_row(path) -> None:
    file = RowFile(path)
    assert [file.short_image(number) for number in range(4)] == [None, "", "7", "y" * 64]


@pytest.mark.parametrize("number", [-1, 4])
def test_there_are_no_other_rows(path, number) -> None:
    with pytest.raises(IndexError, match=f"from 0 to 3; got {number}"):
        RowFile(path)[number]


def test_the_second_use_does_not_read_the_whole_file(path, no_scan) -> None:
    assert read(RowFile(path)) == ROWS
    no_scan()
    assert read(RowFile(path)) == ROWS


def test_another_file_of_the_name_is_read_anew(path) -> None:
    assert len(RowFile(path)) == 4
    time = path.stat().st_mtime_ns
    write(path, ROWS[:2])
    os.utime(path, ns=(time, time))
    assert read(RowFile(path)) == ROWS[:2]
    write(path, ROWS[1::-1])  # of the same size
    os.utime(path, ns=(1, 1))
    assert read(RowFile(path)) == ROWS[1::-1]


def spoiled(good: str) -> dict[str, str | bytes]:
    """An index that is torn, foreign, of another version or damaged in one value."""
    content = json.loads(good)
    start, length, *rest = content["rows"][0]
    rows = {
        "text": ["0", length, *rest], "negative": [-1, length, *rest], "empty": [start, 0, *rest],
        "beyond": [start, 10**9, *rest], "short": [start], "fraction": [0.5, length, *rest],
        "huge": [10**400, length, *rest], "sizes": [start, length, *rest[:-1], [["9", 7]]],
        "size": [start, length, *rest[:-1], [[9, 0]]],
    }  # fmt: skip
    return {
        "torn": good[:-9], "empty file": "", "list": "[1]", "null": "null", "deep": "[" * 100_000,
        "other version": json.dumps(content | {"format": 0, "rows": []}),
        "binary": pickle.dumps(content), "NUL bytes": bytes(4096),
        "columns": json.dumps(content | {"columns": [1, 2]}),
        "no columns": json.dumps({key: content[key] for key in content if key != "columns"}),
        "more": json.dumps(content | {"more": 1})[:-1],
        **{f"row {kind}": json.dumps(content | {"rows": [row]}) for kind, row in rows.items()},
    }  # fmt: skip


def test_a_spoiled_index_is_made_again(path) -> None:
    assert len(RowFile(path)) == 4
    good = index_of(path).read_bytes()
    for kind, content in spoiled(good.decode()).items():
        index_of(path).write_bytes(content.encode() if isinstance(content, str) else content)
        assert read(RowFile(path)) == ROWS, kind
        assert index_of(path).read_bytes() == good, kind


def test_a_folder_that_cannot_be_written_is_told_and_does_no_harm(path, monkeypatch) -> None:
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    file = RowFile(path)
    assert read(file) == ROWS
    (note,) = file.notes
    assert "Each start reads all of the file" in note
    assert "Permission denied" in note
    assert not index_of(path).exists()


def test_a_file_that_changes_under_way_is_refused(path) -> None:
    file = RowFile(path)
    assert file[0] == ROWS[0]
    write(path, ROWS[1:])
    with pytest.raises(UserError, match="changed while in use"):
        file[0]


def test_a_pickled_file_goes_on_where_it_was(path, no_scan) -> None:
    unused, used = RowFile(path), RowFile(path)
    assert len(pickle.loads(pickle.dumps(unused))) == 4
    assert len(used) == 4
    no_scan()
    index_of(path).unlink()
    assert read(pickle.loads(pickle.dumps(used))) == ROWS


def test_worker_processes_read_the_same(path) -> None:
    loader = DataLoader(RowFile(path), batch_size=None, num_workers=2)
    assert list(loader) == ROWS


def _size(path: Path) -> int:
    return len(RowFile(path))


def test_many_processes_may_begin_at_once(path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_size, [path] * 8, chunksize=1) == [4] * 8
    assert sorted(file.name for file in path.parent.iterdir()) == ["set.tsv", "set.tsv.index.json"]


def test_two_indexes_in_the_making_have_different_names(path, monkeypatch) -> None:
    names: list[Path] = []
    monkeypatch.setattr(Path, "replace", lambda part, _: names.append(part))
    for _ in "12":
        assert len(RowFile(path)) == 4
    assert len(set(names)) == 2


def test_the_sum_is_compared_at_every_start(path, no_scan) -> None:
    told = hashlib.md5(path.read_bytes()).hexdigest()
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            len(RowFile(path, md5=["0" * 32]))
        for part in ("0" * 32, told, "data.download=true", "data.verify=false"):
            assert part in str(caught.value)
        no_scan()
    assert len(RowFile(path, md5=["0" * 32, told])) == 4


def test_missing_columns_are_named(path) -> None:
    with pytest.raises(UserError) as caught:
        len(RowFile(path, required=("index", "answer", "C")))
    assert f"index, answer, C in {path}; answer, C missing among index, image" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "begin with tab-separated names"),
        (b"\n\n", "begin with tab-separated names"),
        (b"PK\x03\x04\xff\xfe", "begin with tab-separated names"),
        (b"index\tquestion\n", "header but no rows"),
        (b"index\tindex\n1\t2\n", "each column once"),
        (b"index\tA\n1\tx\n2\ty\n1\tz\n", "each index once in .*; 1 stands in 2 rows"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, sentence) -> None:
    path = tmp_path / "set.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        len(RowFile(path))


def test_an_absent_file_is_one_sentence(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none\.tsv cannot be read"):
        len(RowFile(tmp_path / "none.tsv"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"2\ty", "3 cells in row 1 .*; got 2"),
        (b"2\ty\tz\tz", "3 cells in row 1 .*; got 4"),
        (b"2\t\xff\tz", "row 1 .*can't decode byte"),
        (b"2\ty\rz\tz", "row 1 .*new-line"),
        (b"2\t" + b"y" * 2000 + b"\tz", "row 1 .*field larger"),
    ],
    ids=["few", "many", "encoding", "carriage return", "long"],
)
def test_a_broken_row_breaks_no_other(tmp_path, short_cells, line, sentence) -> None:
    path = tmp_path / "set.tsv"
    path.write_bytes(b"index\tA\tB\n1\tx\tx\n" + line + b"\n3\tx\tx\n")
    for _ in "12":  # with a fresh index and with a kept one
        file = RowFile(path)
        assert [file[0]["index"], file[2]["index"]] == ["1", "3"]
        assert file.find("3") == 2
        with pytest.raises(UserError, match=sentence):
            file[1]
        (note,) = file.notes
        assert note.startswith("1 of 3 rows of set.tsv do not have the header's 3 cells")


def test_a_quote_that_takes_the_rest_of_a_file_along_is_told(tmp_path) -> None:
    lines = ["index\tquestion", *(f"{n}\tq{n}" for n in range(20))]
    lines[11] = '10\t"q10'
    path = tmp_path / "t.tsv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"A quote in row 10 .* takes the 9 lines behind it"):
        len(RowFile(path))


def test_a_quote_that_is_never_closed_does_not_bring_the_file_into_memory(
    tmp_path, short_cells
) -> None:
    path = tmp_path / "set.tsv"
    lines = [f"{number}\ttext" for number in range(1000)]
    path.write_text("\n".join(["index\tA", 'x\t"open', *lines, ""]))
    file = RowFile(path)
    assert file[len(file) - 1] == {"index": "999", "A": "text"}
    assert "1 of" in file.notes[0]
