"""General question sets: questions, images, answers and options of every form that files have."""

from __future__ import annotations

import base64
import csv
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader

from ivcp.core.errors import UserError
from ivcp.core.types import BrokenSample, Sample
from ivcp.datasets import tsv
from ivcp.datasets.cells import image_id
from ivcp.datasets.tsv import TsvBenchmark
from ivcp.evaluation.data import ReadableItems

URL = "https://example.org/sets/Set_V2.tsv"


def color(number: int) -> tuple[int, int, int]:
    return number, 255 - number, 7


def photo(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9 + number, 7), color(number)).save(file, "PNG")
    return file.getvalue()


def encoded(number: int) -> str:
    return base64.b64encode(photo(number)).decode()


def shown(sample: Sample) -> list[int]:
    """Numbers of the photos of a sample."""
    return [image.getpixel((0, 0))[0] for image in sample.images]


def row(number: int, **cells: Any) -> dict[str, Any]:
    told = {"index": number, "image": encoded(number), "question": f"Q{number}?"}
    return {**told, "A": "left", "B": "right", "answer": "B", **cells}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_ALL)
    return path


@pytest.fixture
def make(tmp_path):
    """Writes a file and opens it."""

    def make(*rows: dict[str, Any], task: Any = "multiple_choice", **options: Any) -> TsvBenchmark:
        write(tmp_path / "Set.tsv", list(rows))
        return TsvBenchmark(name="Set", task=task, url=URL, root=str(tmp_path), **options)

    return make


def broken(dataset: TsvBenchmark, number: int, reason: str) -> Sample:
    """What is known of a sample that cannot be asked for that reason."""
    with pytest.raises(BrokenSample) as caught:
        dataset[number]
    assert isinstance(caught.value.__cause__, OSError | UserError)
    assert reason in str(caught.value.__cause__)
    assert caught.value.sample.images == ()
    return caught.value.sample


def test_a_row_becomes_a_sample(make) -> None:
    labels = {"category": "c", "l2-category": "l", "split": "dev", "source": "s"}
    known = {**labels, "hint": 'It "is"\na\ttable.', "prompt": "All of it", "comment": "-"}
    sample = make(row(3, C="None", D="NA", E="", image_path="p.png", **known))[0]
    assert sample == Sample(
        id="3",
        task="multiple_choice",
        images=sample.images,
        question="Q3?",
        answer="B",
        options=("left", "right", "None", "NA"),
        hint='It "is"\na\ttable.',
        benchmark="Set",
        labels={"index": "3", **labels, "image_path": "p.png", "image_id": image_id(encoded(3))},
    )
    assert make(row(3, **known), own_words=True)[0].prompt == "All of it"
    assert shown(sample) == [3]
    assert all(type(value) is str for value in sample.labels.values())


def test_an_id_is_known_without_the_row(make, monkeypatch) -> None:
    dataset = make(row(7), row(3))
    ids = [dataset[index].id for index in range(2)]
    monkeypatch.setattr(type(dataset), "__getitem__", lambda *_: pytest.fail("read"))
    assert [dataset.sample_id(index) for index in range(2)] == ids == ["7", "3"]


def test_sizes_of_photos_are_known_without_decoding_them(make, monkeypatch) -> None:
    monkeypatch.setattr(tsv, "decode", lambda _: pytest.fail("a photo was decoded"))
    file = make(
        row(0), row(1, image=str([encoded(1), encoded(2)])), row(2, image="0"),
        row(3, image="x" * 100), row(4, image=str([encoded(4), "x" * 100])),
        row(5, image="there.png"),
    )  # fmt: skip
    sizes = [file.sizes(number) for number in range(6)]
    assert sizes == [((9, 7),), ((10, 7), (11, 7)), ((9, 7),), (), (), ()]


def test_a_size_behind_much_else_is_found(make) -> None:
    """As in a JPEG file that begins with a thumbnail."""
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "t" * 20_000
    Image.new("RGB", (300, 200)).save(content, "JPEG", exif=exif)
    file = make(row(0, image=base64.b64encode(content.getvalue()).decode()))
    assert file.sizes(0) == ((300, 200),)


def test_empty_cells_make_no_labels_hints_or_prompts(make) -> None:
    sample = make(row(3, category="", hint="", split=None), row(4, prompt="P", hint="H"))[0]
    assert set(sample.labels) == {"index", "image_id"}
    assert (sample.hint, sample.prompt) == ("", "")


def test_options_end_with_the_last_that_has_a_text(make) -> None:
    dataset = make(row(1, C="", D="x", E="", F=""), row(2, C="", D="", E="", F=""))
    assert [dataset[number].options for number in (0, 1)] == [
        ("left", "right", "", "x"),
        ("left", "right"),
    ]


@pytest.mark.parametrize("answer", ["C", "b", "", "AB", "left"])
def test_an_answer_that_is_no_letter_of_an_option_breaks_the_sample(make, answer) -> None:
    dataset = make(row(1, answer=answer, C="", D="x", category="c"))
    sample = broken(dataset, 0, "one of the letters A, B, D as answer in row 0")
    assert (sample.id, sample.answer, sample.labels["category"]) == ("1", answer, "c")


def test_an_open_question_becomes_one_between_its_answer_and_others(make) -> None:
    dataset = make(row(1, A="", B="", answer="['7', 'seven']"), row(2), open_options=True)
    sample = dataset[0]
    assert (sample.options, sample.answer) == (("['7', 'seven']", "Other Answers"), "A")
    assert sample.labels["open"] == "yes"
    assert "open" not in dataset[1].labels


def test_an_open_question_is_broken_where_none_is_expected(make) -> None:
    assert broken(make(row(1, A="", B="", answer="7")), 0, "answer in row 0").answer == "7"
    dataset = make(row(1, A="", B="", answer=""), open_options=True)
    assert broken(dataset, 0, "answer in row 0").answer == ""


def test_yes_and_no_in_any_case(make) -> None:
    dataset = make(*(row(n, answer=a) for n, a in enumerate(["Yes", "no", "NO "])), task="yes_no")
    assert [dataset[number].answer for number in range(3)] == ["Yes", "No", "No"]
    assert dataset[0].options == ()


@pytest.mark.parametrize("answer", ["", "Yes.", "maybe"])
def test_an_answer_that_is_neither_yes_nor_no_is_broken(make, answer) -> None:
    sample = broken(make(row(1, answer=answer), task="yes_no"), 0, "Yes or No as answer in row 0")
    assert sample.answer == answer.capitalize()
    assert sample.labels["index"] == "1"


def test_a_set_with_words_of_its_own_needs_their_column(make) -> None:
    with pytest.raises(UserError, match="prompt missing among"):
        len(make(row(1), own_words=True))


def test_another_sum_is_accepted_where_none_is_verified(make) -> None:
    with pytest.raises(UserError, match=r"data\.verify=false"):
        len(make(row(1), md5="0" * 32))
    assert len(make(row(1), md5="0" * 32, verify=False)) == 1


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        ("None", "None"),
        (" as it is ", " as it is "),
        ("['it''s', \"a 'b'\", 3]", ("its", "a 'b'", "3")),
        ("['one']", ("one",)),
        ("[1, 2) is half open", "[1, 2) is half open"),
        ("[not, a list]", "[not, a list]"),
        ("['a'], ['b']", "['a'], ['b']"),
        (" ['a']", " ['a']"),
    ],
)
def test_open_answers_are_a_text_or_a_list_of_texts(make, cell, answer) -> None:
    assert make(row(1, answer=cell), task="open_ended")[0].answer == answer


@pytest.mark.parametrize("cell", ["", "[]"])
def test_no_answer_breaks_the_sample(make, cell) -> None:
    broken(make(row(1, answer=cell), task="open_ended"), 0, "an answer in row 0")


def test_rotations_refer_to_the_image_of_their_question(make) -> None:
    dataset = make(row(1), row(2), row(1_000_002, image="2"), row(1_000_001, image="1"))
    assert [shown(dataset[number]) for number in range(4)] == [[1], [2], [2], [1]]
    assert [dataset[number].id for number in range(4)] == ["1", "2", "1000002", "1000001"]


def test_a_reference_to_nothing_breaks_its_sample_alone(make) -> None:
    dataset = make(row(1), row(2, image="9", split="dev"), row(3, image="2"), row(4, image="4"))
    known = broken(dataset, 1, "no row of the index 9")
    assert (known.id, known.question, known.answer) == ("2", "Q2?", "B")
    assert known.labels == {"index": "2", "split": "dev"}
    broken(dataset, 2, "the image of row 2")
    broken(dataset, 3, "the image of row 3")
    assert shown(dataset[0]) == [1]


def test_several_images_keep_their_order(make) -> None:
    both = str([encoded(5), encoded(4)])
    dataset = make(row(1, image=both), row(2, image="1"), row(3, image=str([encoded(6)])))
    assert [shown(dataset[number]) for number in range(3)] == [[5, 4], [5, 4], [6]]


def test_images_may_lie_beside_the_file_or_in_the_folder_of_the_set(make, tmp_path) -> None:
    places = {1: tmp_path, 2: tmp_path / "images" / "Set" / "sub", 3: tmp_path / "elsewhere"}
    for number, folder in places.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(photo(number))
    absolute = str(tmp_path / "elsewhere" / "3.png")
    paths = ["1.png", "sub/2.png", absolute, str(["sub/2.png", absolute])]
    without = [{k: v for k, v in row(n).items() if k != "image"} for n in range(4)]
    dataset = make(*({**one, "image_path": path} for one, path in zip(without, paths, strict=True)))
    assert [shown(dataset[number]) for number in range(4)] == [[1], [2], [3], [2, 3]]
    assert dataset.notes == ()
    listed = make(row(9, image=str(["1.png", "sub/2.png"])), row(8, image="", image_path="1.png"))
    assert [shown(listed[number]) for number in range(2)] == [[1, 2], [1]]
    assert listed.notes == ()


def test_rows_without_an_image_are_left_out_and_counted(make) -> None:
    dataset = make(row(1), row(2, image=""), row(3, image="1"), row(4, image=None), rows=4)
    assert [dataset[number].id for number in range(len(dataset))] == ["1", "3"]
    assert dataset.notes == ("2 of 4 rows have no image and are left out.",)


def test_without_a_column_of_images_every_row_needs_a_path(make) -> None:
    cells = [{**row(n), "image_path": ""} for n in range(2)]
    dataset = make(*({k: v for k, v in one.items() if k != "image"} for one in cells))
    assert len(dataset) == 2
    broken(dataset, 1, "an image or a path in row 1")


def test_images_that_cannot_be_decoded_break_their_samples(make) -> None:
    half = base64.b64encode(photo(1)[:45]).decode() + "\n" * 30
    beyond_ascii = encoded(1)[:50] + "\u00e9" + encoded(1)[50:]
    contents = [
        "no base64 at all " * 9, half, "QUJD" * 40, "gone.png" * 9, str([encoded(1), "x"]),
        beyond_ascii, "[0x" + "f" * 5000 + "]", "[" * 5000 + "]" * 5000, "a\0.png" * 12,
    ]  # fmt: skip
    dataset = make(*(row(n, image=image) for n, image in enumerate(contents)))
    for number in range(len(contents)):
        assert broken(dataset, number, "").id == str(number)


@pytest.mark.parametrize("task", ["multiple_choice", "open_ended"])
@pytest.mark.parametrize("question", ["", " \n"])
def test_a_question_without_a_text_breaks_its_sample(make, task, question) -> None:
    broken(make(row(1, question=question), row(2), task=task), 0, "text in the column question of")


def test_an_image_path_that_leaves_its_folders_needs_a_setting(make, tmp_path) -> None:
    (tmp_path / "secret.png").write_bytes(photo(3))
    root = tmp_path / "root"
    write(root / "Set.tsv", [row(1, image="", image_path=str(tmp_path / "secret.png")),
                             row(2, image="", image_path="../secret.png")])  # fmt: skip
    options = {"name": "Set", "task": "multiple_choice", "url": URL, "root": str(root)}
    for number in range(2):
        broken(TsvBenchmark(**options), number, "data.images_anywhere=true")
        assert shown(TsvBenchmark(**options, images_anywhere=True)[number]) == [3]


def test_whatever_goes_wrong_with_a_sample_breaks_it_alone(make, monkeypatch) -> None:
    def stumble(_) -> None:
        raise RecursionError("deep")

    monkeypatch.setattr(tsv, "decode", stumble)
    with pytest.raises(BrokenSample) as caught:
        make(row(1))[0]
    assert str(caught.value.__cause__) == "deep"
    assert caught.value.sample.labels["index"] == "1"


def test_a_row_of_too_few_cells_is_known_by_its_number_alone(make, tmp_path) -> None:
    dataset = make(row(1), row(2), row(3))
    lines = (tmp_path / "Set.tsv").read_text().splitlines()
    lines[2] = lines[2].rpartition("\t")[0]
    (tmp_path / "Set.tsv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"6 cells in row 1 .*; got 5"):
        dataset[1]
    assert (dataset[2].id, len(dataset)) == ("3", 3)
    assert dataset.notes == (
        "1 of 3 rows of Set.tsv do not have the header's 6 cells and count as wrong.",
    )


def test_a_row_without_an_index_is_none(make) -> None:
    with pytest.raises(UserError, match="an index in row 0"):
        make(row(1, index=""), row(2))[0]


@pytest.mark.parametrize("number", [-1, 1])
def test_there_are_no_other_samples(make, number) -> None:
    with pytest.raises(IndexError, match=f"from 0 to 0; got {number}"):
        make(row(1))[number]


@pytest.mark.parametrize(
    ("task", "missing"),
    [
        ("multiple_choice", "answer"), ("multiple_choice", "B"), ("yes_no", "question"),
        ("open_ended", "index"), ("yes_no", "image"),
    ],
)  # fmt: skip
def test_missing_columns_are_named(make, task, missing) -> None:
    rows = [{key: value for key, value in row(1).items() if key != missing}]
    with pytest.raises(UserError, match=rf"Expected .*{missing}.* in .*Set\.tsv"):
        len(make(*rows, task=task))


def test_only_choices_need_options(make) -> None:
    bare = {key: value for key, value in row(1, answer="no").items() if key not in "AB"}
    assert len(make(bare, task="yes_no")) == 1
    assert make(bare, open_options=True)[0].options == ("no", "Other Answers")


def test_a_number_of_rows_that_was_not_published_is_told(make) -> None:
    assert make(row(1), row(2), rows=2).notes == ()
    assert make(row(1), rows=14232).notes == ("The file has 1 rows, 14,232 are published.",)


def test_tasks_are_checked_at_once() -> None:
    with pytest.raises(UserError, match=r"yes_no, multiple_choice, open_ended; got grounding"):
        TsvBenchmark(name="Set", task="grounding", url=URL)


def test_the_file_may_have_the_name_of_its_address(tmp_path) -> None:
    write(tmp_path / "Set_V2.tsv", [row(1)])
    dataset = TsvBenchmark(name="Set", task="multiple_choice", url=URL, root=str(tmp_path))
    assert len(dataset) == 1
    write(tmp_path / "Set.tsv", [row(1), row(2)])
    dataset = TsvBenchmark(name="Set", task="multiple_choice", url=URL, root=str(tmp_path))
    assert len(dataset) == 2


def test_a_file_of_ones_own(tmp_path) -> None:
    own = write(tmp_path / "own.tsv", [row(1)])
    dataset = TsvBenchmark(name="Set", task="multiple_choice", url=URL, file=str(own))
    assert dataset[0].benchmark == "Set"
    absent = TsvBenchmark(name="Set", task="multiple_choice", url=URL, file=str(tmp_path))
    with pytest.raises(UserError, match=r"dataset\.file must be a file"):
        len(absent)


def test_an_absent_file_is_fetched_only_if_asked(tmp_path, monkeypatch) -> None:
    def fetch(url, path, md5) -> None:
        assert (url, md5) == (URL, (md5_of_it,))
        write(path, [row(1)])

    md5_of_it = "0" * 32
    monkeypatch.setattr(tsv, "fetch", fetch)
    options = {"name": "Set", "task": "multiple_choice", "url": URL, "root": str(tmp_path)}
    with pytest.raises(UserError) as caught:
        len(TsvBenchmark(**options))
    for part in (URL, str(tmp_path / "Set.tsv"), "data.download=true"):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"Expected the md5 sum"):
        len(TsvBenchmark(**options, download=True, md5=md5_of_it))
    assert len(TsvBenchmark(**options)) == 1


def test_a_file_without_an_address(tmp_path) -> None:
    dataset = TsvBenchmark(name="Set", task="multiple_choice", root=str(tmp_path), download=True)
    with pytest.raises(UserError, match=rf"{tmp_path}/Set\.tsv; put it there, or .*dataset\.file="):
        len(dataset)
    write(tmp_path / "Set.tsv", [row(1)])
    dataset = TsvBenchmark(name="Set", task="multiple_choice", root=tmp_path)
    assert len(dataset) == 1


@pytest.mark.parametrize("content", [None, b""])
def test_a_file_that_is_a_folder_or_empty(tmp_path, content) -> None:
    path = tmp_path / "Set.tsv"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"Expected .*{path}.*(it is a folder|to begin with)"):
        len(TsvBenchmark(name="Set", task="multiple_choice", root=str(tmp_path)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", None), ("root", 3), ("md5", 3), ("md5", [1]), ("rows", "many"), ("verify", "no"),
     ("download", 1), ("file", ["a"])],
)  # fmt: skip
def test_fields_of_another_type(field, value) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.{field} must be .*; got "):
        TsvBenchmark(**{"name": "Set", "task": "open_ended", "url": URL, field: value})


def test_the_configuration_may_list_several_sums(tmp_path) -> None:
    write(tmp_path / "Set.tsv", [row(1)])
    told = {
        "_target_": "ivcp.datasets.tsv.TsvBenchmark", "name": "Set", "task": "multiple_choice",
        "url": URL, "md5": ["0" * 32, "1" * 32], "rows": None, "root": str(tmp_path),
    }  # fmt: skip
    dataset = instantiate(OmegaConf.create({"dataset": told}).dataset)
    with pytest.raises(UserError, match=f"{'0' * 32} or {'1' * 32}"):
        len(pickle.loads(pickle.dumps(dataset)))


def test_workers_give_the_same_samples_and_failures(make) -> None:
    rows = [row(1), row(2, image="8"), row(3, image="1"), row(4, answer="Z"), row(5)]
    dataset = pickle.loads(pickle.dumps(make(*rows)))
    items = list(DataLoader(ReadableItems(dataset, None), batch_size=None, num_workers=2))
    assert [item.sample.id for item in items] == ["1", "2", "3", "4", "5"]
    assert [bool(item.failed) for item in items] == [False, True, False, True, False]
    assert items[1].failed.startswith("UserError: ")
    assert np.array_equal(items[2].sample.images[0], dataset[0].images[0])


@pytest.mark.parametrize("folder", ["mmbench_samples", "pope_mini"])
def test_real_questions_with_their_photos(realdata, tmp_path, folder) -> None:
    (own,) = (realdata / folder).glob("*.tsv")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "Set").symlink_to(realdata / folder / "images")
    task = "yes_no" if folder == "pope_mini" else "multiple_choice"
    (tmp_path / "Set.tsv").write_bytes(own.read_bytes())
    dataset = TsvBenchmark(name="Set", task=task, url=URL, root=str(tmp_path))
    frame = pd.read_csv(own, sep="\t", dtype=str, keep_default_na=False)
    assert len(dataset) == len(frame) > 0
    for number, cells in enumerate(frame.to_dict("records")):
        sample = dataset[number]
        with Image.open(realdata / folder / "images" / cells["image_path"]) as image:
            assert np.array_equal(sample.images[0], image.convert("RGB"))
        assert (sample.question, sample.answer) == (cells["question"], cells["answer"])
        letters = [letter for letter in "ABCD" if cells.get(letter)]
        assert sample.options == tuple(cells[letter] for letter in letters)
