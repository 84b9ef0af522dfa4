"""What does reading frames of a long clip cost? `python -m benchmarks.video.bench`.

Each number is measured in a new process; plain PyAV and the reader take turns. Writes
`results.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

SECONDS, RATE, WIDTH, HEIGHT = 600, 30, 640, 360
FRAMES = 64
SIZE = (560, 308)  # to which Qwen2.5-VL's reader resizes: 220 tokens of 28 x 28 pixels
STEPS = ("plain", "reader", "resized")


def write(path: Path) -> None:
    """Write a clip of coloured blocks that move, encoded as x264 does by default but faster."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    pixels = blocks.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(SECONDS * RATE):
            moved = np.roll(pixels, (number % HEIGHT, 3 * number % WIDTH), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())


def decode_plainly(path: Path, wanted: list[int]) -> None:
    """Seek to each frame and decode up to it, with nothing but PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.time_base is None:
            raise RuntimeError("the clip was not written as it should be")
        for number in wanted:
            stamp = round(number / RATE / stream.time_base)
            container.seek(stamp, stream=stream)
            next(frame for frame in container.decode(stream) if (frame.pts or 0) >= stamp)


def run_step(step: str, path: Path) -> dict[str, float]:
    """Do one step in this process: its times, and by how much memory grew beside the frames."""
    from ivcp.core.video import Video
    from ivcp.models.video_frames import evenly

    wanted = evenly(SECONDS * RATE, FRAMES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    size = 0
    if step == "plain":
        decode_plainly(path, wanted)
    else:
        resized = (lambda *_: SIZE) if step == "resized" else None
        size = Video(path=path).read(lambda total, rate: wanted, resized).frames.nbytes
    numbers = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**numbers, "memory_mb": (after - before) / 1e3 - size / 1e6}


def main() -> None:
    """Run everything and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clip", type=Path, help="where the clip is kept; it is made if absent")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(arguments.step, arguments.clip)))
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = arguments.clip or Path(folder) / "clip.mp4"
        if not clip.exists():
            write(clip)
        runs: list[dict[str, dict[str, float]]] = []
        for number in range(arguments.rounds):
            order = STEPS if number % 2 else STEPS[::-1]
            command = [sys.executable, "-m", __spec__.name, "--clip", str(clip), "--step"]
            runs.append(
                {step: json.loads(subprocess.check_output([*command, step])) for step in order}
            )
            print(json.dumps(runs[-1]), flush=True)
    results: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores of {platform.machine()}", "pyav": av.__version__,
        "frames": FRAMES, "rounds": arguments.rounds,
    }  # fmt: skip
    for step in STEPS:
        results[step] = {"memory_mb": max(run[step]["memory_mb"] for run in runs)}
        for unit in ("seconds", "cpu_seconds"):
            ratios = [run[step][unit] / run["plain"][unit] for run in runs]
            results[step][unit] = statistics.median(run[step][unit] for run in runs)
            results[step][f"{unit}_of_plain"] = statistics.median(ratios)
    (Path(__file__).parent / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
