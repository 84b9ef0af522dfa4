from __future__ import annotations

from dataclasses import replace

import pytest
from source import Source

from ivcp.core.errors import UserError
from ivcp.core.types import BrokenSample, Sample
from ivcp.datasets.task_group import TaskGroup

SAMPLE = Sample(id="7", task="yes_no", images=(), question="?", answer="Yes", labels={"a": "b"})


def group(limit: int | None = None, **tasks: Source) -> TaskGroup:
    return TaskGroup(tasks={name: {"dataset": own} for name, own in tasks.items()},
                 limit_each=limit)  # fmt: skip


def ids(dataset: TaskGroup) -> list[str]:
    return [dataset[index].id for index in range(len(dataset))]


def test_members_follow_each_other_under_their_names() -> None:
    both = group(one=Source(SAMPLE), two=Source(SAMPLE, replace(SAMPLE, id="8")))
    assert ids(both) == ["one/7", "two/7", "two/8"]
    assert both[1] == replace(SAMPLE, id="two/7", labels={"a": "b", "task": "two"})


def test_sizes_are_the_member_s() -> None:
    sized = Source(SAMPLE)
    sized.sizes = lambda index: ((7, 8 + index),)
    both = group(one=Source(SAMPLE), two=sized)
    assert [both.sizes(index) for index in range(2)] == [(), ((7, 8),)]


def test_ids_are_known_without_images_where_a_task_tells_them() -> None:
    named = Source(SAMPLE)
    named.sample_id = lambda index: "named"
    both = group(one=Source(SAMPLE), two=named)
    assert [both.sample_id(index) for index in range(2)] == ["one/7", "two/named"]


def test_one_task_with_videos_makes_a_group_with_videos() -> None:
    clips = Source(SAMPLE)
    clips.has_videos = True
    assert group(one=Source(SAMPLE), two=clips).has_videos
    assert not group(one=Source(SAMPLE)).has_videos


def test_an_empty_member_and_a_limit_of_each() -> None:
    several = [replace(SAMPLE, id=str(number)) for number in range(4)]
    cut = group(2, one=Source(*several), none=Source(), two=Source(*several[:1]))
    assert ids(cut) == ["one/0", "one/1", "two/0"]


def test_an_index_beyond_the_end_is_refused() -> None:
    for index in (1, -1):
        with pytest.raises(IndexError, match="from 0 to 0; got"):
            group(one=Source(SAMPLE))[index]


def test_what_is_known_of_a_broken_sample_stays_with_its_member() -> None:
    told = BrokenSample(SAMPLE)
    told.__cause__ = OSError("no photo")
    with pytest.raises(BrokenSample) as caught:
        group(one=Source(SAMPLE), two=Source(told))[1]
    assert caught.value.sample == replace(SAMPLE, id="two/7", labels={"a": "b", "task": "two"})
    assert str(caught.value.__cause__) == "no photo"


@pytest.mark.parametrize("error", [OSError("torn"), UserError("Row 3 has no answer.")])
def test_a_sample_of_which_nothing_is_known_counts_in_its_member_all_the_same(error) -> None:
    with pytest.raises(BrokenSample) as caught:
        group(one=Source(SAMPLE), two=Source(SAMPLE, error))[2]
    known = caught.value.sample
    assert (known.id, known.labels, known.task) == ("two/index-1", {"task": "two"}, "yes_no")
    assert caught.value.__cause__ is error


def test_notes_are_told_with_the_members_name() -> None:
    assert group(one=Source(SAMPLE, notes=("is short",))).notes == ("one: is short",)


def test_what_cannot_be_a_suite_is_refused() -> None:
    with pytest.raises(UserError, match="needs tasks"):
        group()
    with pytest.raises(UserError, match="at least 1 or null; got 0"):
        group(0, one=Source(SAMPLE))


@pytest.mark.parametrize("limit", [0, -1, "x", 1.5, True])
def test_a_limit_that_is_no_number_of_samples(limit) -> None:
    with pytest.raises(UserError, match=r"dataset\.limit_each must be"):
        TaskGroup(tasks={"one": {}}, limit_each=limit)
