"""The grounding dataset: every yaml, every source, every trap, every kind of bad photo."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from PIL import Image
from test_conf import CONF, composed
from test_mdetr import (
    OBJECTS,
    PHOTOS,
    expected,
    mdetr_content,
    photo_name,
    write_mdetr,
    write_photos,
)
from test_release import write_release
from test_unc import write_unc
from torch.utils.data import DataLoader

from ivcp.core.errors import UserError
from ivcp.core.metric import ScoredAnswer, to_frame
from ivcp.core.types import BrokenSample, Sample
from ivcp.datasets.refcoco import RefCOCO
from ivcp.evaluation.data import Item, ReadableItems
from ivcp.metrics.grounding import GroundingMetrics

PUBLISHED = {  # yaml -> name of the file, benchmark, published number of expressions
    "refcoco_val": ("finetune_refcoco_val.json", "RefCOCO_val", 10834),
    "refcoco_testA": ("finetune_refcoco_testA.json", "RefCOCO_testA", 5657),
    "refcoco_testB": ("finetune_refcoco_testB.json", "RefCOCO_testB", 5095),
    "refcocoplus_val": ("finetune_refcoco+_val.json", "RefCOCO+_val", 10758),
    "refcocoplus_testA": ("finetune_refcoco+_testA.json", "RefCOCO+_testA", 5726),
    "refcocoplus_testB": ("finetune_refcoco+_testB.json", "RefCOCO+_testB", 4889),
    "refcocog_val": ("finetune_refcocog_val.json", "RefCOCOg_val", 4896),
    "refcocog_test": ("finetune_refcocog_test.json", "RefCOCOg_test", 9602),
}


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder of benchmark files with all eight splits of one layout and the photos."""
    write_photos(tmp_path / "train2014")
    for file, *_ in PUBLISHED.values():
        write_mdetr(tmp_path / file)
    return tmp_path


def split(root: Path, **fields: Any) -> RefCOCO:
    return RefCOCO(**{"name": "refcoco", "split": "testA", "root": str(root), **fields})


def asked(data: RefCOCO) -> list[Sample]:
    return [data[index] for index in range(len(data))]


def told(sample: Sample) -> tuple[Any, ...]:
    return sample.question, sample.answer, sample.images[0].size, sample.labels["image_id"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_yaml_loads_the_real_layout(name, root) -> None:
    _, benchmark, count = PUBLISHED[name]
    data = instantiate(composed(f"dataset={name}", f"data.root={root}").dataset)
    samples = asked(data)
    assert [told(sample) for sample in samples] == expected()
    for number, sample in enumerate(samples):
        assert sample.id == str(4711 + number)
        assert (sample.task, sample.benchmark) == ("grounding", benchmark)
        assert [image.mode for image in sample.images] == ["RGB"]
    assert data.notes == (
        f"The source mdetr has 7 expressions of {benchmark}, {count:,} are published.",
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_yaml_states_every_field(name) -> None:
    config = OmegaConf.load(CONF / "dataset" / f"{name}.yaml")
    target = get_class(config.dataset.pop("_target_"))
    assert set(config.dataset) == {field.name for field in fields(target)}
    assert config.metric._target_ == "ivcp.metrics.grounding.GroundingMetrics"


def test_the_suite_has_all_eight(root) -> None:
    group = instantiate(composed("dataset=grounding", f"data.root={root}").dataset)
    assert len(group) == 8 * 7
    assert [group[7 * number].benchmark for number in range(8)] == [
        benchmark for _, benchmark, _ in PUBLISHED.values()
    ]
    assert group[7].id == "refcoco_testA/4711"


def test_all_sources_ask_the_same(root) -> None:
    write_unc(root / "refcoco")
    write_release(root / "RefCOCO_testA.tsv")
    sources = [split(root, source=source) for source in ("unc", "release", "mdetr")]
    for data in sources:
        samples = asked(data)
        assert [(one.question, one.answer) for one in samples] == [one[:2] for one in expected()]
        assert [one.images[0].size for one in samples] == [one[2] for one in expected()]
        assert {one.benchmark for one in samples} == {"RefCOCO_testA"}
        assert len({one.id for one in samples}) == 7


def test_the_hub_asks_the_same(tmp_path, monkeypatch) -> None:
    library = pytest.importorskip("datasets")
    from test_hf_rows import write_hub

    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_hub(tmp_path / "RefCOCO")
    write_hub(tmp_path / "own", way="parquet")
    for place in (None, str(tmp_path / "own")):
        data = split(tmp_path, source="hub", annotations=place)
        assert [told(sample) for sample in asked(data)] == expected()


def test_the_resized_frame_is_declared(root) -> None:
    write_release(root / "RefCOCO_testA_for_qwen25vl.tsv", "qwen25")
    data = split(root, source="release", coordinates="qwen25")
    assert data[0].answer == pytest.approx(expected()[0][1], abs=0.6)
    with pytest.raises(UserError, match=r"Expected the file .*RefCOCO_testA\.tsv"):
        len(split(root, source="release"))
    own = str(root / "RefCOCO_testA_for_qwen25vl.tsv")
    (note,) = split(root, source="release", annotations=own).notes
    assert "whole numbers" in note


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "refcoco+"}, "one of refcoco, refcocoplus, refcocog; got 'refcoco+'"),
        ({"annotations": 3}, r"dataset\.annotations must be a text or null; got 3"),
        ({"photos": 3}, r"dataset\.photos must be a text or null; got 3"),
        ({"expressions": "many"}, r"dataset\.expressions must be a whole number or null"),
        ({"split": "test"}, "split must be one of val, testA, testB; got 'test'"),
        ({"name": "refcocog"}, "split must be one of val, test; got 'testA'"),
        ({"source": "coco"}, "source must be one of mdetr, release, unc, hub; got 'coco'"),
        ({"coordinates": "thousandths"}, "coordinates must be one of pixels, qwen25"),
        ({"coordinates": "qwen25"}, "coordinates=qwen25 is for dataset.source=release alone"),
        ({"scheme": "umd"}, "RefCOCO has the scheme unc; got dataset.scheme=umd"),
        ({"name": "refcocog", "split": "val", "scheme": "unc"}, "RefCOCOg has the scheme umd"),
        ({"name": "refcocog", "split": "val", "scheme": "google"}, "google scheme divides objects"),
        ({"scheme": "google"}, "use the scheme unc of RefCOCO"),
        ({"source": "unc", "annotations": "x/refs(google).p"}, "google scheme divides objects"),
        ({"source": "hub", "split": "val"}, "mixes 3,811 objects of the unc scheme"),
        ({"source": "hub", "split": "test"}, "is google's"),
        ({"source": "hub", "name": "refcocog", "split": "val"}, "mixes 2,573 objects of the umd"),
    ],
)
def test_traps_are_refused_at_once(fields, sentence, tmp_path) -> None:
    with pytest.raises(UserError, match=sentence.replace("+", r"\+")):
        split(tmp_path, **fields)


@pytest.mark.parametrize(
    ("name", "scheme"), [("refcoco", "unc"), ("refcocoplus", "unc"), ("refcocog", "umd")]
)
def test_the_published_scheme_may_be_named_and_chooses_the_file(name, scheme, root) -> None:
    title = name.replace("plus", "+")
    write_unc(root / title, scheme=scheme, split="val")
    for named in (None, scheme):
        data = split(root, name=name, split="val", scheme=named, source="unc")
        assert [told(sample) for sample in asked(data)] == expected()


def test_nothing_is_read_before_it_is_needed(tmp_path) -> None:
    data = split(tmp_path / "nowhere")
    assert repr(data).startswith("RefCOCO(")
    with pytest.raises(UserError, match="finetune_refcoco_testA"):
        len(data)


def test_the_photos_are_found(root) -> None:
    moved = shutil.move(root / "train2014", root / "photos")
    with pytest.raises(UserError, match=r"images .* in .*train2014, which is no folder"):
        split(root)[0]
    assert len(split(root, photos=str(moved))) == 7
    shutil.move(root / "photos", root / "coco" / "train2014")
    assert split(root)[0].images[0].size == (64, 48)


def test_a_photo_that_is_not_the_annotated_one_is_a_broken_sample(root) -> None:
    photos = root / "train2014"
    (photos / photo_name(9)).unlink()
    torn = (photos / photo_name(25)).read_bytes()
    (photos / photo_name(25)).write_bytes(torn[: len(torn) // 2])
    data = split(root)
    for number in (3, 6):
        with pytest.raises(BrokenSample) as caught:
            data[number]
        assert isinstance(caught.value.__cause__, OSError)
        sample = caught.value.sample
        assert (sample.images, sample.question, sample.answer) == ((), *expected()[number][:2])
        assert sample.id == str(4711 + number)
    Image.new("RGB", (48, 64)).save(photos / photo_name(581857))
    with pytest.raises(BrokenSample) as caught:
        data[0]
    assert str(caught.value.__cause__) == (
        "Expected an image of 64 x 48 pixels, as annotated; got one of 48 x 64."
    )


def test_a_run_goes_on_past_bad_photos_and_counts_them(root) -> None:
    (root / "train2014" / photo_name(9)).unlink()
    items = ReadableItems(split(root), None)
    loader = DataLoader(items, batch_size=None, num_workers=2)
    found: list[Item] = list(loader)
    assert [bool(item.failed) for item in found] == [False] * 3 + [True] + [False] * 3
    assert found[3].failed.startswith("FileNotFoundError: ")
    assert found[3].sample is not None
    assert found[3].sample.answer == expected()[3][1]


def changed(root: Path, **values: Any) -> RefCOCO:
    """A split with other values in its second image entry, or in the annotation of it."""
    content = mdetr_content()
    entry = content["images"][1]
    entry |= {name: value for name, value in values.items() if name != "bbox"}
    if "bbox" in values:
        annotation = next(a for a in content["annotations"] if a["image_id"] == 4712)
        annotation["bbox"] = values["bbox"]
    write_mdetr(root / "finetune_refcoco_testA.json", content)
    return split(root)


@pytest.mark.parametrize("caption", [None, "", "  ", 7, ["her"], "half \ud83d"])
def test_an_expression_without_a_text_is_a_broken_sample(root, caption) -> None:
    items = list(ReadableItems(changed(root, caption=caption), None))
    assert [bool(item.failed) for item in items] == [False, True] + [False] * 5
    assert "Expected a text in image entry 1" in items[1].failed
    assert items[1].sample.answer == expected()[1][1]
    json.dumps([items[1].sample.question, items[1].failed], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("bbox", "beyond"),
    [
        ([0, 0, 64, 48], False), ([0, 0, 64.9, 48], False), ([0, 0, 66, 48], True),
        ([-2, 0, 9, 9], True), ([60, 40, 1, 99], True), ([500, 500, 9, 9], True),
    ],
)  # fmt: skip
def test_boxes_that_reach_beyond_their_image_are_counted(root, bbox, beyond) -> None:
    samples = asked(changed(root, bbox=bbox))
    assert ["box_beyond_image" in sample.labels for sample in samples] == [
        number == 1 and beyond for number in range(7)
    ]
    scored = [ScoredAnswer(None, sample.answer, 0.0, sample.labels) for sample in samples]
    notes = GroundingMetrics().notes(to_frame(scored))
    assert notes == beyond * (
        "1 of 7 true boxes reach beyond their image; they are scored as they are.",
    )


def test_an_image_elsewhere_needs_a_setting(root) -> None:
    name = str(root / photo_name(9))
    Image.new("RGB", (64, 48)).save(name)
    for file in (name, f"../{photo_name(9)}"):
        data = changed(root, file_name=file)
        with pytest.raises(BrokenSample) as caught:
            data[1]
        assert "data.images_anywhere=true" in str(caught.value.__cause__)
        assert replace(data, images_anywhere=True)[1].images[0].size == (64, 48)


def test_an_orientation_tag_does_not_turn_the_photo(root) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6  # a quarter turn
    with Image.open(root / "train2014" / photo_name(9)) as image:
        image.load()
    image.save(root / "train2014" / photo_name(9), exif=tags)
    assert split(root)[3].images[0].size == PHOTOS[9]


def test_an_index_beyond_the_end(root) -> None:
    for index in (-1, 7):
        with pytest.raises(IndexError, match=f"from 0 to 6; got {index}"):
            split(root)[index]


def test_a_complete_split_has_nothing_to_note(root) -> None:
    assert split(root, expressions=7).notes == ()
    assert split(root, expressions=None).notes == ()


def test_a_loaded_split_can_be_sent_to_another_process(root) -> None:
    data = split(root)
    assert len(data) == 7
    copy = pickle.loads(pickle.dumps(data))
    (root / "finetune_refcoco_testA.json").unlink()
    assert copy[2].question == data[2].question


def test_ids_follow_the_source_not_the_order(root) -> None:
    content = mdetr_content()
    content["images"].reverse()
    (root / "finetune_refcoco_testA.json").write_text(json.dumps(content))
    samples = asked(split(root))
    by_id = {sample.id: told(sample) for sample in samples}
    assert [by_id[str(4711 + number)] for number in range(7)] == expected()
    assert len(samples) == sum(len(texts) for *_, texts in OBJECTS)
