import io
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image
from source import Source

from ivcp.core.errors import UserError
from ivcp.core.family import Encoded
from ivcp.core.types import BrokenSample, Sample
from ivcp.evaluation.data import (
    AssignedBatches,
    Item,
    ReadableItems,
    assign,
    collate,
    cut,
    unfinished,
)
from ivcp.models.qwen25vl import Qwen25VL

SAMPLE = Sample(
    id="a", task="yes_no", images=(Image.new("RGB", (8, 8)),), question="?", answer="Yes"
)


def truncated_image() -> Image.Image:
    """A JPEG whose second half is missing; PIL opens it and fails when the pixels are needed."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    return Image.open(io.BytesIO(file.getvalue()[: file.tell() // 2]))


@pytest.fixture(scope="module")
def tiny():
    """The packaged family and its processor."""
    family = Qwen25VL(path=None, dtype="float32")
    return family, family.processor()


class PickyFamily:
    """Encodes everything but samples whose id is "bad"."""

    def encode(self, processor, samples) -> Encoded:
        if any(sample.id == "bad" for sample in samples):
            raise UserError("An image is too thin.")
        return Encoded({}, [sample.id for sample in samples], [], [])


def test_bad_samples_become_items_with_a_reason() -> None:
    source = Source(
        SAMPLE,
        OSError("cannot identify image file"),
        UserError("Row 2 has\nno answer."),
        replace(SAMPLE, images=(truncated_image(),)),
    )
    items = [ReadableItems(source, None)[index] for index in range(4)]
    assert items[0] == Item(0, SAMPLE)
    assert [item.sample for item in items[1:]] == [None, None, replace(SAMPLE, images=())]
    assert items[1].failed == "OSError: cannot identify image file"
    assert items[2].failed == "UserError: Row 2 has no answer."
    assert "truncated" in items[3].failed


def test_what_is_known_of_a_broken_sample_is_kept() -> None:
    known = replace(SAMPLE, images=(), labels={"category": "popular"})
    told = BrokenSample(known)
    told.__cause__ = OSError("broken data stream")
    item = ReadableItems(Source(told), None)[0]
    assert item == Item(0, known, "OSError: broken data stream")
    batch = collate(PickyFamily(), None, [item, Item(1, SAMPLE)])
    assert (batch.indices, batch.samples, batch.failures) == ((1,), (SAMPLE,), (item,))


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), MemoryError("x"), RecursionError("x")])
def test_every_exception_of_a_sample_is_its_failure(error) -> None:
    item = ReadableItems(Source(error), None)[0]
    assert item == Item(0, None, f"{type(error).__name__}: x")


def test_an_exception_of_the_encoding_fails_one_sample() -> None:
    class Typed(PickyFamily):
        def encode(self, processor, samples) -> Encoded:
            if any(sample.question == "\ud83d" for sample in samples):
                raise TypeError("TextEncodeInput must be Union")
            return super().encode(processor, samples)

    items = [Item(0, SAMPLE), Item(1, replace(SAMPLE, question="\ud83d"))]
    batch = collate(Typed(), None, items)
    assert batch.indices == (0,)
    assert batch.failures[0].failed == "TypeError: TextEncodeInput must be Union"


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [("question", "a \ud83d", "question"), ("hint", "\ud83d", "question"),
     ("options", ("a", "b \ud83d"), "options"), ("answer", "\ud83d", "answer"),
     ("answer", ("a", "\ud83d"), "answer")],
)  # fmt: skip
def test_half_an_emoji_fails_its_sample_alone(tiny, field, value, name) -> None:
    family, processor = tiny
    whole = replace(SAMPLE, question="\U0001f600?", options=("\U0001f600", "b"))
    items = [Item(0, whole), Item(1, replace(whole, **{field: value})), Item(2, whole)]
    batch = collate(family, processor, items)
    assert batch.indices == (0, 2)
    (failure,) = batch.failures
    assert failure.failed.startswith(f"UserError: Expected whole characters in the {name}; got")


def test_ids_are_read_without_images_where_a_dataset_can() -> None:
    class Named(Source):
        def sample_id(self, index: int) -> str:
            return f"named-{index}"

    assert ReadableItems(Named(OSError()), None).sample_id(0) == "named-0"
    plain = ReadableItems(Source(SAMPLE, OSError()), None)
    assert [plain.sample_id(0), plain.sample_id(1)] == ["a", "index-1"]


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(UserError, match="The dataset is empty"):
        ReadableItems(Source(), None)


@pytest.mark.parametrize(("limit", "length"), [(None, 3), (2, 2), (9, 3)])
def test_limit(limit, length) -> None:
    assert len(ReadableItems(Source(SAMPLE, SAMPLE, SAMPLE), limit)) == length


def test_a_sample_that_cannot_be_encoded_fails_alone() -> None:
    items = [
        Item(4, replace(SAMPLE, id="x")),
        Item(5, replace(SAMPLE, id="bad")),
        Item(6, None, "OSError"),
        Item(7, replace(SAMPLE, id="y")),
    ]
    batch = collate(PickyFamily(), None, items)
    assert batch.indices == (4, 7)
    assert batch.encoded.prompts == ["x", "y"]
    assert [(item.index, item.failed) for item in batch.failures] == [
        (5, "UserError: An image is too thin."),
        (6, "OSError"),
    ]


def test_a_batch_of_nothing_but_failures_has_no_inputs() -> None:
    batch = collate(PickyFamily(), None, [Item(0, None, "OSError")])
    assert batch.encoded is None
    assert batch.samples == ()
    assert batch.to("cpu") is batch


def test_a_sample_costs_its_text_and_the_visual_tokens_of_its_images() -> None:
    class Area:
        def expected_tokens(self, processor, sizes) -> float:
            return sum(width * height for width, height in sizes)

    def cost(**sizes) -> float:
        source = Source(SAMPLE)
        vars(source).update(sizes)
        return ReadableItems(source, None).cost(0, Area(), None)

    assert cost(sizes=lambda index: ((2, 3), (4, 5))) - cost(sizes=lambda index: ((1, 1),)) == 25
    assert cost() == cost(sizes=lambda index: ()) == cost(sizes=lambda index: ((640, 480),))


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("count", range(8))
def test_every_batch_has_one_process(count, processes) -> None:
    costs = [random.Random(count).random() for _ in range(count)]
    assigned = assign(costs, processes)
    assert len(assigned) == processes
    assert sorted(number for numbers in assigned for number in numbers) == list(range(count))
    assert all(numbers == sorted(numbers) for numbers in assigned)
    assert not count or assigned[0][0] == 0


def test_costs_are_balanced_where_counts_would_not_be() -> None:
    draw = random.Random(0)
    costs = [draw.lognormvariate(0, 1.5) for _ in range(200)]
    loads = [sum(costs[number] for number in numbers) for numbers in assign(costs, 2)]
    assert max(loads) < 1.01 * min(loads)
    first, second = sum(costs[:100]), sum(costs[100:])
    assert max(first, second) > 1.05 * min(first, second)


@pytest.mark.parametrize(("batches", "workers"), [(0, 0), (2, 2), (9, 5)])
def test_no_process_is_started_that_would_have_nothing_to_load(tiny, batches, workers) -> None:
    family, processor = tiny
    items = ReadableItems(Source(*[SAMPLE] * 9), None)
    data = AssignedBatches(items, [(number,) for number in range(batches)], family, workers=5)
    strategy = SimpleNamespace(broadcast=lambda plan: plan)
    module = SimpleNamespace(processor=processor)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        strategy=strategy, lightning_module=module, world_size=1, global_rank=0
    )
    assert data.predict_dataloader().num_workers == workers


def test_batches_do_not_depend_on_who_evaluates_them() -> None:
    assert cut(7, 3) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert cut(0, 3) == []


def test_a_batch_with_a_missing_answer_is_evaluated_anew() -> None:
    assert unfinished(cut(7, 3), {0, 1, 2, 3, 5}) == [(3, 4, 5), (6,)]
