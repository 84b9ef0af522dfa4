"""For notebooks: load a model, ask one question, look at what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ivcp.core.errors import UserError
from ivcp.core.pixels import decode, to_rgb
from ivcp.core.types import Box, Sample, Task

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

    from ivcp.core.pruner import Pruner
    from ivcp.engine.session import Session
    from ivcp.models.hub import Processor


@dataclass(frozen=True)
class Reply:
    """One answer of a model.

    Attributes:
        text: What the model wrote.
        box: The first box in it, in pixels of the last image; None if it holds none.
        images: The images of the prompt.
        session: What was kept, and what it cost.
    """

    text: str
    box: Box | None
    images: tuple[Image.Image, ...]
    session: Session

    def draw(self, number: int = -1) -> Image.Image:
        """One of the images with the tokens that were kept of it, and the box on the last one.

        Args:
            number: Which image; by default the last one.
        """
        number %= len(self.images)
        box = self.box if number == len(self.images) - 1 else None
        return self.session.draw(self.images[number], number=number, predicted=box)


def load(
    path: str | Path | None = None,
    *,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    attention: str = "sdpa",
    device_map: str | None = None,
    **settings: Any,
) -> tuple[nn.Module, Processor]:
    """A model in evaluation mode and its processor, by the model type of the checkpoint.

    Args:
        path: A folder, or an id on the Hugging Face hub; None is the packaged small model.
        dtype: Of the weights; "auto" as they are stored.
        attention: "sdpa", "eager" or "flash_attention_2".
        device_map: As in `from_pretrained`.
        settings: Other fields of the model's family, such as `max_pixels` of Qwen's.

    Returns:
        The Hugging Face model, and the processor that `ask` and `evaluate` take.

    Raises:
        UserError: No family loads the checkpoint, or it cannot be read.
    """
    from ivcp.models.loaded import family_of

    folder = None if path is None else str(path)
    settings = {"dtype": dtype, "attention": attention, "device_map": device_map, **settings}
    return family_of(folder, **settings).load()


def ask(
    model: nn.Module,
    processor: Processor,
    image: Image.Image | str | Path | Sequence[Image.Image | str | Path],
    question: str,
    *,
    pruner: Pruner | None = None,
    task: Task = "open_ended",
    **generation: Any,
) -> Reply:
    """The model's answer to one question, with visual tokens pruned.

    Args:
        model: As `load` gave it; it may have been moved to another device since.
        processor: Likewise.
        image: The image or its file, or several.
        question: Passed on as it is; for another task than "open_ended", worded as the model's
            family words that task ("grounding" takes an expression and asks for its box).
        pruner: The method; None prunes nothing.
        task: The kind of answer.
        generation: Keyword arguments of `generate`; by default 128 tokens, greedily.

    Raises:
        UserError: The processor is of another kind, a file holds no image, or the model cannot
            serve the pruner.
    """
    import torch

    import ivcp
    from ivcp.engine.generate_arguments import check_generation

    family = getattr(processor, "family", None)
    if family is None:
        raise UserError("processor must be what ivcp.load gave together with the model.")
    several = image if isinstance(image, Sequence) and not isinstance(image, str) else [image]
    images = tuple(map(_image, several))
    sample = Sample(
        id="ask",
        task=task,
        images=images,
        question=question,
        answer="",
        verbatim=task == "open_ended",
    )
    encoded = family.encode(processor, [sample])
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in encoded.inputs.items()}
    generation = check_generation({"max_new_tokens": 128, "do_sample": False, **generation})
    method = ivcp.NoPruning() if pruner is None else pruner
    with ivcp.pruned(model, method, family=family) as session, torch.no_grad():
        session.questions, session.visible_areas = [question], encoded.visible_areas
        tokens = model.generate(**inputs, **generation)  # type: ignore[operator]
    text = family.decode(processor, tokens[:, inputs["input_ids"].shape[1] :])[0]
    box = family.parse_box(text) if task == "grounding" else None
    if box is not None:
        box = encoded.box_frames[0].to_pixels(box)
    return Reply(text, box, images, session)


def _image(image: Image.Image | str | Path) -> Image.Image:
    """An image in RGB, as it is or from a file."""
    if not isinstance(image, str | Path):
        return to_rgb(image)
    try:
        return decode(Path(image))
    except OSError as error:
        raise UserError(f"{image} cannot be read as an image ({error}).") from error
