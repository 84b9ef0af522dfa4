"""Draw what each method keeps on one scene, for its page: `python docs/pictures.py`.

The packaged model answers one question about one rendered scene, at a keep ratio of 0.3.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from ivcp.core.family import encode_for, fit_pair
from ivcp.engine.attach import open_session
from ivcp.visualize.overlay import draw_overlay

ROOT = Path(__file__).parents[1]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "pruner").glob("*.yaml"))
SCENE, KEEP = 21, 0.3
COLORS = 128  # of a palette, which makes a file small and keeps the legend's colours


def draw(method: str) -> Image.Image:
    """The overlay of one method, with its own settings for the packaged model."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"pruner={method}", f"ratio={KEEP}"])
    family, sample = instantiate(cfg.model), instantiate(cfg.dataset)[SCENE]
    pruner = fit_pair(instantiate(cfg.pruner), family, "tiny")
    model, processor = family.load()
    ready = encode_for(pruner, family, processor, [sample])
    with torch.no_grad(), open_session(model, family, pruner) as session:
        session.sample_ids, session.questions = [sample.id], [sample.question]
        output = model.generate(**ready.inputs, **cfg.generation)
    answer = family.decode(processor, output[:, ready.inputs["input_ids"].shape[1] :])[0]
    box = family.parse_box(answer)
    (image,) = session.layouts[0].images  # one grid, which shows all of the image
    before = ", ".join(str(stage.layer) for stage in pruner.stages())
    where = f" before layer {before}" if before else ""
    return draw_overlay(
        sample.images[0],
        layout=image,
        kept=session.kept[0].tolist(),
        reasons=session.reasons[0],
        predicted=None if box is None else ready.box_frames[0].to_pixels(box),
        truth=sample.answer,
        title=f"{method}{where}: {sample.question}",
    )


def main(arguments: list[str] | None = None) -> None:
    """Draw some methods, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="method", help=", ".join(METHODS))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "methods", metavar="FOLDER")
    options = parser.parse_args(arguments)
    for method in options.methods or METHODS:
        path = options.out / f"{method}.png"
        overlay = draw(method).quantize(COLORS, Image.Quantize.FASTOCTREE)
        overlay.save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
