"""TextVQA: agreement with ten people's answers."""

from __future__ import annotations

from collections.abc import Sequence

from ivcp.metrics.compat import Compat
from ivcp.metrics.open_ended import OpenEndedMetrics
from ivcp.metrics.yes_no import strip_punctuation

ENOUGH = 3
"""People whose agreement makes an answer right."""
ARTICLES = ("a", "an", "the")
NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
SHORTENED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock
oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've 'twas
wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
TWICE_SHORTENED = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've
"""


def _spellings() -> dict[str, str]:
    """Words whose apostrophe was left out, once or all but once, and the words they are."""
    spellings = {word.replace("'", ""): word for word in SHORTENED.split()}
    for word in TWICE_SHORTENED.split():
        marks = [position for position, letter in enumerate(word) if letter == "'"]
        spellings |= {word[:mark] + word[mark + 1 :]: word for mark in marks}
    return spellings | {"somebody'd": "somebodyd", "ow's'at": "'ow's'at", "'ows'at": "'ow's'at"}


SPELLINGS = _spellings()


def normalize(text: str, compat: Compat = "vlmevalkit") -> str:
    """An answer as the VQA evaluation compares it.

    Punctuation goes (`strip_punctuation`), so do articles; number words up to ten become digits,
    contractions get their apostrophe.

    >>> normalize("The two  dogs."), normalize("dont walk"), normalize("3.5"), normalize("1,000")
    ('2 dogs', "don't walk", '3.5', '1000')
    """
    words = strip_punctuation(text.replace("\n", " ").replace("\t", " ").strip(), compat)
    named = (NUMBERS.get(word, word) for word in words.lower().split())
    return " ".join(SPELLINGS.get(word, word) for word in named if word not in ARTICLES)


class VqaAccuracy(OpenEndedMetrics):
    """Mean over the people of how many of the others agree with the reply, three being enough.

    Source: the VQA evaluation (Antol et al., 2015), as VLMEvalKit computes it for TextVQA.
    """

    primary_metric = "vqa_accuracy"

    def compare(self, reply: str, accepted: Sequence[str]) -> float:
        answer = normalize(reply, self.compat)
        agreed = [normalize(text, self.compat) == answer for text in accepted]
        count = sum(agreed)
        return sum(min(1.0, (count - agrees) / ENOUGH) for agrees in agreed) / len(agreed)
