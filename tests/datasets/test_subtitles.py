"""Subtitles: what a file in SubRip's format says, and which of it falls on uniform moments."""

from __future__ import annotations

from pathlib import Path

from published_videos import write_clip

from ivcp.datasets.subtitles import Line, clip_seconds, read_srt, uniform_lines

LINES = [Line(0, 10, "a"), Line(10, 20, "b"), Line(12, 14, "c"), Line(25, 30, "d")]


def read(folder: Path, content: bytes) -> tuple[Line, ...]:
    (folder / "a.srt").write_bytes(content)
    return read_srt(folder / "a.srt")


def test_markup_is_taken_out_and_lines_are_joined(tmp_path) -> None:
    content = (
        "\ufeff1\r\n00:00:01,500 --> 00:00:02,250\r\n"
        '<font color="white" size=".72c">Hello,\r\n<i>world</i></font>\r\n\r\n'
        "2\r\n01:00:00.5 --> 01:00:01.05 X1:40\r\n{\\an8}5 < 6 --\r\n\r\n"
        "3\r\n00:00:09,000 --> 00:00:09,500\r\n\r\n"
    )
    assert read(tmp_path, content.encode()) == (
        Line(1.5, 2.25, "Hello, world"),
        Line(3600.5, 3601.05, "5 < 6 --"),
    )


def test_files_without_subtitles_have_none(tmp_path) -> None:
    assert read_srt(tmp_path / "absent.srt") == ()
    for content in (b"", b"no subtitles", b"\xff\xfe\x00", b"1\n00:00 --> 00:01\ntext\n"):
        assert read(tmp_path, content) == ()


def test_a_text_that_is_no_utf_8_is_read_as_far_as_it_is(tmp_path) -> None:
    (line,) = read(tmp_path, b"1\n00:00:00,000 --> 00:00:01,000\ncaf\xe9\n")
    assert line.text == "caf\N{REPLACEMENT CHARACTER}"


def test_every_subtitle_of_a_moment_stands_once() -> None:
    assert uniform_lines(LINES, 30, 1) == ["b"]  # second 15
    assert uniform_lines(LINES, 26, 1) == ["b", "c"]  # second 13: two at once
    assert uniform_lines(LINES, 30, 9) == ["a", "b", "d"]  # 3, 6, ... 27; 12 begins "c" only
    assert uniform_lines(LINES, 30, 29) == ["a", "b", "c", "d"]  # 1, 2, ... 29
    assert uniform_lines(LINES, 1000, 1) == []


def test_the_header_has_the_duration(tmp_path) -> None:
    assert clip_seconds(write_clip(tmp_path / "a.mp4", seconds=3)) == 3
    (tmp_path / "b.mp4").write_bytes(b"no clip")
    assert clip_seconds(tmp_path / "b.mp4") is clip_seconds(tmp_path / "absent.mp4") is None
