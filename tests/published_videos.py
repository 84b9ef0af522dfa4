"""Small copies of the video benchmarks, in the files, columns and folders as they are published."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MVBENCH = {  # task -> its folder in the branch main, and that in the branch video
    "action_sequence": ("star/Charades_v1_480", "star/Charades_segment"),
    "object_existence": ("clevrer/video_validation", "clevrer/video_validation"),
    "fine_grained_pose": ("nturgbd", "nturgbd_convert"),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment"),
}


def write_clip(path: Path, seconds: int = 2, rate: int = 4) -> Path:
    """A clip of 56 x 56 pixels that grows brighter."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 56
        stream.pix_fmt = "yuv420p"
        for number in range(seconds * rate):
            pixels = np.full((56, 56, 3), 30 + 20 * number % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_frames(folder: Path, count: int = 6) -> Path:
    """A folder of images, as TVQA has clips."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.new("RGB", (56, 56), (20 * number, 90, 20)).save(folder / f"{number:05d}.jpg")
    return folder


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as parquet or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


VIDEOMME = [
    {
        "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Law",
        "url": "https://www.youtube.com/watch?v=aaa", "videoID": "aaa", "question_id": f"001-{n}",
        "task_type": "Counting Problem", "question": "How many balls?",
        "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."], "answer": "B",
    }
    for n in (1, 2)
]  # fmt: skip
VIDEOMME.append(VIDEOMME[0] | {"videoID": "-b_b", "question_id": "002-1", "duration": "long"})
SRT = """1
00:00:00,000 --> 00:00:00,800
<font color="white" size=".72c">the ball is red</font>

2
00:00:00,900 --> 00:00:01,900
it falls
down
"""


def write_videomme(root: Path) -> Path:
    home = root / "Video-MME"
    write_table(home / "videomme" / "test-00000-of-00001.parquet", VIDEOMME)
    write_clip(home / "data" / "aaa.mp4")
    write_clip(home / "data" / "-b_b.mp4")
    (home / "subtitle").mkdir()
    (home / "subtitle" / "aaa.srt").write_text(SRT, encoding="utf-8")
    return home


def mvbench_rows(task: str, cut: bool) -> list[dict[str, Any]]:
    """Two questions about one clip."""
    video = "castle_s01" if task == "episodic_reasoning" and not cut else "clip.mp4"
    row = {
        "video": video, "question": "What is it?", "candidates": ["a cat", "a dog", "a hen"],
        "answer": "a dog",
    }  # fmt: skip
    if task in ("action_sequence", "episodic_reasoning"):  # not of clips that are cut already
        row |= {"start": 0.5, "end": 1.5}
    return [row, row | {"answer": "a cat"}]


def write_mvbench(root: Path, branch: str = "main") -> Path:
    home, cut = root / "MVBench", branch == "video"
    for task, folders in MVBENCH.items():
        write_table(home / "json" / f"{task}.json", mvbench_rows(task, cut))
        folder = home / folders[1] if cut else home / "video" / folders[0]
        if task == "episodic_reasoning" and not cut:
            write_frames(folder / "castle_s01")
        else:
            write_clip(folder / "clip.mp4")
    return home


LONGVIDEOBENCH = [
    {
        "video_id": "x1", "id": f"x1_{n}", "video_path": "x1.mp4", "subtitle_path": "x1_en.json",
        "question": "What is on the desk?", "candidates": ["a pen", "a cup"], "correct_choice": n,
        "duration": 12.5, "duration_group": 15, "question_category": "S2O",
        "topic_category": "KH-Knowledge-History", "starting_timestamp_for_subtitles": 0.0,
    }
    for n in (0, 1)
]  # fmt: skip


def write_longvideobench(root: Path) -> Path:
    home = root / "LongVideoBench"
    write_table(home / "lvb_val.json", LONGVIDEOBENCH)
    write_clip(home / "videos" / "x1.mp4")
    return home


def write_mlvu(root: Path) -> Path:
    home = root / "MVLU" / "MLVU"
    row = {
        "duration": 480.0, "question": "What color is it?", "candidates": ["Red", "Blue"],
        "answer": "Blue", "video": "movie101_66.mp4",
    }  # fmt: skip
    kinds = {"1_plotQA": "plotQA", "4_count": "count"}
    for file, kind in kinds.items():
        rows = [row | {"question_type": kind}] * (2 if kind == "plotQA" else 1)
        write_table(home / "json" / f"{file}.json", rows)
        write_clip(home / "video" / file / "movie101_66.mp4")
    return home.parent


def write_egoschema(root: Path) -> Path:
    home = root / "egoschema"
    options = [f"{letter}. c does {n} things." for n, letter in enumerate("ABCDE")]
    rows = [
        {
            "question_idx": str(n), "question": "What does c do?", "video_idx": f"0a{n}",
            "option": options, "answer": str(n),
        }
        for n in (3, 0)
    ]  # fmt: skip
    write_table(home / "Subset" / "test-00000-of-00001.parquet", rows)
    for n in (3, 0):
        write_clip(home / "videos" / f"0a{n}.mp4")
    return home


TEMPCOMPASS: dict[str, list[dict[str, Any]]] = {
    "multi-choice": [
        {
            "video_id": "1021488277", "dim": "action", "answer": "B. runs",
            "question": "What does it do?\nA. sits\nB. runs\nC. eats",
        }
    ],
    "yes_no": [
        {"video_id": "1021488277", "question": "Is it running?", "answer": "yes", "dim": "action"}
    ],
    "caption_matching": [
        {
            "video_id": "1021488277", "dim": "order", "answer": "Option 2: It runs, then sits.",
            "question": "Which caption matches the video better?\nOption 1: It sits, then runs.\n"
            "Option 2: It runs, then sits.",
        }
    ],
}  # fmt: skip


def write_tempcompass(root: Path) -> Path:
    home = root / "TempCompass"
    for part, rows in TEMPCOMPASS.items():
        write_table(home / part / "test-00000-of-00001.parquet", rows)
    write_clip(home / "videos" / "1021488277.mp4")
    return home


CHARADES = [
    {"video": "3MSZA.mp4", "caption": "person turn a light on", "timestamp": [24.3, 30.4]},
    {"video": "3MSZA.mp4", "caption": "person turn a light on", "timestamp": [0.0, 1.5]},
]


def write_charades(root: Path) -> Path:
    home = root / "charades_sta"
    write_table(home / "data" / "test-00000-of-00001.parquet", CHARADES)
    write_clip(home / "Charades_v1_480" / "3MSZA.mp4")
    return home


WRITERS: dict[str, Callable[[Path], Path]] = {
    "videomme": write_videomme,
    "mvbench": write_mvbench,
    "longvideobench_val": write_longvideobench,
    "mlvu": write_mlvu,
    "egoschema_subset": write_egoschema,
    "tempcompass": write_tempcompass,
    "charades_sta": write_charades,
}


def write_all(root: Path) -> Path:
    """Every set."""
    for write in WRITERS.values():
        write(root)
    return root
