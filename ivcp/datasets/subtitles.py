"""Subtitles of clips, and those that fall on uniform moments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

CLOCK = r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})"
TIMES = re.compile(rf"^[ \t]*{CLOCK}\s*-->\s*{CLOCK}.*$", re.MULTILINE)
MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")
"""HTML tags, and codes such as {\\an8} that position a line."""


class Line(NamedTuple):
    """One subtitle.

    Attributes:
        start: Second at which it appears.
        stop: Second at which it disappears.
        text: Its text, on one line.
    """

    start: float
    stop: float
    text: str


def read_srt(path: Path) -> tuple[Line, ...]:
    """The subtitles of a file in the format SubRip; empty if it is absent or has none.

    Raises:
        OSError: It cannot be read.
    """
    content = _read(path)
    matches = list(TIMES.finditer(content))
    lines = []
    for number, match in enumerate(matches, start=1):
        end = matches[number].start() if number < len(matches) else len(content)
        block = content[match.end() : end].split("\n\n")[0]
        text = " ".join(MARKUP.sub("", block).split())
        if text:
            numbers = match.groups()
            lines.append(Line(_seconds(*numbers[:4]), _seconds(*numbers[4:]), text))
    return tuple(lines)


def has_subtitles(path: Path) -> bool:
    """Whether a file has a subtitle, without reading all of them."""
    return TIMES.search(_read(path)) is not None


def _read(path: Path) -> str:
    """The content of a file; empty if it is absent."""
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")


def _seconds(hours: str, minutes: str, seconds: str, fraction: str) -> float:
    """Seconds of a clock time.

    >>> _seconds("0", "01", "02", "5")
    62.5
    """
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def uniform_lines(lines: Sequence[Line], seconds: float, count: int) -> list[str]:
    """Texts of the subtitles at uniform moments of a clip, each subtitle once, in order of time.

    The moments are those of VLMEvalKit's frames, which divide the clip into `count + 1` parts.

    Args:
        lines: All subtitles.
        seconds: Duration of the clip.
        count: Number of moments.

    >>> lines = [Line(0, 4, "one"), Line(4, 5, "two"), Line(5, 9, "three")]
    >>> uniform_lines(lines, 9, 2)
    ['one', 'three']
    """
    moments = [seconds * number / (count + 1) for number in range(1, count + 1)]
    return [
        line.text
        for line in sorted(lines)
        if any(line.start < moment < line.stop for moment in moments)
    ]


def clip_seconds(path: Path) -> float | None:
    """Duration of a clip as its header states it; None if it does not, or cannot be read."""
    try:
        av = import_module("av")
        with av.open(str(path)) as container:
            return None if container.duration is None else container.duration / av.time_base
    except (ImportError, OSError, ValueError):  # the sample fails when its frames are read
        return None
