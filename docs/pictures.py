"""Draw what each method keeps on one scene, for its page: `python docs/pictures.py`.

`python docs/pictures.py --gallery` puts these pictures together.

The packaged model answers one question about one rendered scene, at a keep ratio of 0.3.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image, ImageDraw, ImageFont

from ivcp.core.pairing import fit_pair
from ivcp.core.resizing import encode_for
from ivcp.engine.attach import open_session
from ivcp.visualize.overlay import draw_overlay

ROOT = Path(__file__).parents[1]
OF_VIDEOS = {"evs", "vidcom2"}  # whose pages name the commands of their pictures
METHODS = sorted(
    path.stem for path in (ROOT / "conf" / "pruner").glob("*.yaml") if path.stem not in OF_VIDEOS
)
SCENE, KEEP = 21, 0.3
PANEL = (12, 39, 492, 519)  # where the scene is in an overlay with a title of one line
TILE, GAP, LABEL, COLUMNS = 192, 8, 20, 5  # of the gallery, in pixels
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
    if pruner.first_pass():
        where += f", after {pruner.first_pass()} layers"
    return draw_overlay(
        sample.images[0],
        layout=image,
        kept=session.kept[0].tolist(),
        reasons=session.reasons[0],
        predicted=None if box is None else ready.box_frames[0].to_pixels(box),
        truth=sample.answer,
        title=f"{method}{where}: {sample.question}",
    )


def gallery(folder: Path) -> Image.Image:
    """The pictures of a folder side by side, small, by name."""
    paths = sorted(path for path in folder.glob("*.png") if path.stem in METHODS)
    width, height = TILE + GAP, TILE + GAP + LABEL
    rows = -(-len(paths) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for number, path in enumerate(paths):
        x, y = GAP + number % COLUMNS * width, GAP + number // COLUMNS * height
        scene = Image.open(path).convert("RGB").crop(PANEL)
        pen.text((x, y), path.stem, font=font, fill="black")
        sheet.paste(scene.resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y + LABEL))
    return sheet


def main(arguments: list[str] | None = None) -> None:
    """Draw some methods, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="method", help=", ".join(METHODS))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "methods", metavar="FOLDER")
    parser.add_argument("--gallery", action="store_true", help="put those that there are together")
    options = parser.parse_args(arguments)
    if options.gallery:
        sheet = gallery(options.out).quantize(COLORS, Image.Quantize.FASTOCTREE)
        sheet.save(options.out / "gallery.png", optimize=True)
        return
    for method in options.methods or METHODS:
        path = options.out / f"{method}.png"
        overlay = draw(method).quantize(COLORS, Image.Quantize.FASTOCTREE)
        overlay.save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
