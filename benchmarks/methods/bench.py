"""What does choosing tokens cost, method by method? `python -m benchmarks.methods.bench`.

Every method of `conf/pruner` on one random Qwen2.5-VL, with an image, or with a video of as many
frames as `--frames` says. Unpruned and pruned prefills alternate. Rows are saved one by one; the
same command goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image, ImageChops
from torch import Tensor

from ivcp import pruned
from ivcp.bench.image import bench_image, image_size
from ivcp.bench.rotation import RotatedRuns
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner
from ivcp.core.types import Sample
from ivcp.core.video import Video
from ivcp.engine.prefill import Prefill
from ivcp.measure.devices import device_name, machine_name
from ivcp.measure.peak_bytes import PeakBytes
from ivcp.models import find_family
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.models.random_weights import random_weights
from ivcp.models.video_frames import PAIR
from ivcp.results.provenance import versions
from ivcp.results.schema import Quartiles

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "pruner").glob("*.yaml"))
QUESTION = "Where is the red ball?"


def method(name: str, model: Any, size: str, ratio: float) -> Pruner:
    """A method with its own settings, those for the packaged model where layers are few."""
    tuned = {"full": "qwen25vl", "reduced": "tiny"}[size]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"pruner={name}", f"model={tuned}", f"ratio={ratio}"])
    pruner: Pruner = instantiate(cfg.pruner)
    layers = model.config.text_config.num_hidden_layers
    return pruner.fitted("qwen2_5_vl", layers, find_family(model).provides(model.config))


@contextmanager
def metered() -> Iterator[PeakBytes]:
    """Most bytes that the stages of a prefill hold beside what there was."""
    meter, stage = PeakBytes(), Prefill._stage

    def run(self: Prefill, *args: Any) -> Any:
        with meter:
            return stage(self, *args)

    Prefill._stage = run  # type: ignore[method-assign]
    try:
        yield meter
    finally:
        Prefill._stage = stage  # type: ignore[method-assign]


def measure(model: Any, inputs: dict[str, Tensor], pruner: Pruner, repeats: int) -> dict[str, Any]:
    """Overhead of a method: milliseconds, share of the unpruned prefill, and memory."""
    family = find_family(model)
    with metered() as meter, torch.no_grad(), pruned(model, pruner) as session:
        session.questions = [QUESTION]
        model(**inputs, use_cache=True, logits_to_keep=1)
    runs = RotatedRuns(model, family, [pruner], inputs, question=QUESTION)
    pairs = [
        (plain.prefill_ms, short.pruning_overhead_ms)
        for plain, short in (runs.repeats(repeats) if repeats else ())
        if plain is not None and short is not None
    ]
    if runs.failures:
        raise UserError(f"{pruner.name}: {', '.join(runs.failures.values())}.")
    return {
        "layers": [stage.layer for stage in pruner.stages()],
        "kept": len(session.kept[0]),
        "unpruned_prefill_ms": Quartiles.of(plain for plain, _ in pairs).model_dump(),
        "overhead_ms": Quartiles.of(overhead for _, overhead in pairs).model_dump(),
        "overhead_share": Quartiles.of(overhead / plain for plain, overhead in pairs).model_dump(),
        "selection_megabytes": meter.peak / 1e6,
    }


def moving(image: Image.Image, frames: int) -> Video:
    """A video of so many pairs of frames, in which the image moves to the right."""
    count = frames * PAIR
    shifted = tuple(ImageChops.offset(image, 5 * number, 0) for number in range(count))
    return Video(frames=shifted, times=tuple(number / PAIR for number in range(count)))


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    frames = results.get("frames")
    video = f"a video of {frames} frames, " if frames else ""
    timing = "Times were not measured."
    if results["repeats"]:
        timing = (
            f"Medians [quartiles] of {results['repeats']} pairs; the share is that of the unpruned "
            "language prefill beside it."
        )
    lines = [
        f"Qwen2.5-VL, {results['size']} size, {results['dtype']}, batch 1, {video}keep ratio "
        f"{results['ratio']}; {results['device']} ({results['machine']}), torch "
        f"{results['versions']['torch']}. {timing}",
        "",
        "| visual tokens | method | before | overhead ms | share % | selection MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(results["rows"], key=lambda row: (row["visual_tokens"], row["method"])):
        time, share = row["overhead_ms"], row["overhead_share"]
        times = ("-", "-")
        if time["median"] is not None:
            times = (
                f"{time['median']:.2f} [{time['q1']:.2f}, {time['q3']:.2f}]",
                f"{100 * share['median']:.2f}",
            )
        layers = ", ".join(map(str, row["layers"]))
        cells = (row["visual_tokens"], row["method"], layers, *times)
        lines.append(f"| {' | '.join(map(str, cells))} | {row['selection_megabytes']:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what the folder does not have yet, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=["full", "reduced"], default="reduced")
    parser.add_argument("--tokens", type=int, nargs="+", help="of an image or frame")
    parser.add_argument("--frames", type=int, help="of a video; without it, an image is measured")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--repeats", type=int, default=5, help="0 measures memory alone")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="folder of the results; default: by size")
    args = parser.parse_args()
    out = args.out or HERE / (f"{args.size}_video" if args.frames else args.size)
    dtype = "bfloat16" if args.device.startswith("cuda") else "float32"
    family = random_weights(
        Qwen25VL(dtype=dtype, frames=args.frames and args.frames * PAIR),
        reduced=args.size == "reduced",
        device=args.device,
    )
    model, processor = family.load()
    about = {
        "size": args.size, "dtype": dtype, "frames": args.frames, "ratio": args.ratio,
        "repeats": args.repeats, "machine": machine_name(), "versions": versions(),
        "device": device_name(torch.device(args.device)), "rows": [],
    }  # fmt: skip
    path = out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else about
    done = {(row["visual_tokens"], row["method"]) for row in results["rows"]}
    for tokens in args.tokens or ([196] if args.frames else [1024, 4096]):
        image = bench_image(image_size(tokens, family, processor))
        visuals: dict[str, Any] = {"images": (image,)}
        if args.frames:
            visuals = {"images": (), "videos": (moving(image, args.frames),)}
        sample = Sample(
            id="bench", task="open_ended", question=QUESTION, answer="", verbatim=True, **visuals
        )
        encoded = family.encode(processor, [sample])
        inputs = {name: value.to(args.device) for name, value in encoded.inputs.items()}
        visual = int((inputs["mm_token_type_ids"] > 0).sum())
        for name in args.methods:
            pruner = method(name, model, args.size, args.ratio)
            if (visual, name) in done or not pruner.stages():
                continue
            row = measure(model, inputs, pruner, args.repeats)
            results["rows"].append({"visual_tokens": visual, "method": name, **row})
            out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=1))
            print(visual, name, row["overhead_ms"], row["selection_megabytes"], flush=True)
    (out / "results.md").write_text(report(results))
    print(report(results))


if __name__ == "__main__":
    main()
