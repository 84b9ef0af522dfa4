"""Option letters, against VLMEvalKit's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ivcp.core.types import Sample
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics, read_letter

ROWS = json.loads((Path(__file__).parent / "golden/multiple_choice.json").read_text())["rows"]


@pytest.mark.parametrize("row", ROWS)
def test_reading_agrees_with_vlmevalkit(row: dict[str, Any]) -> None:
    expected = None if row["can_infer"] in (False, "Z") else row["can_infer"]
    assert read_letter(row["prediction"], row["options"]) == expected


def test_without_options_nothing_is_read() -> None:
    assert read_letter("A", ()) is None


def test_a_refusal_is_not_overruled_by_the_text_of_an_option() -> None:
    assert read_letter("a cat", ("cat", "dog")) == "A"
    assert read_letter("Z, no cat", ("cat", "dog")) is None


def test_accuracy_counts_the_unread() -> None:
    image = Image.new("RGB", (8, 8))
    sample = Sample(
        id="0",
        task="multiple_choice",
        images=(image,),
        question="How many?",
        answer="B",
        options=("1", "2"),
    )
    metric = MultipleChoiceMetrics()
    parsed = [metric.read(text, sample, lambda text: None) for text in ("B.", "A", "?", "2")]
    assert parsed == ["B", "A", None, "B"]
    assert [metric.score(letter, sample) for letter in parsed] == [1, 0, 0, 1]
    metric.update(parsed, ["B"] * 4)
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values == {"accuracy": 0.5, "unparsed_rate": 0.25}
