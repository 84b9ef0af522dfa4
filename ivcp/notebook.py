"""For notebooks: load a model, ask one question, look at what was kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ivcp.core.errors import UserError
from ivcp.core.pixels import decode, to_rgb
from ivcp.core.types import Box, Sample, Task
from ivcp.core.video import Clip, Video

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

    from ivcp.core.pruner import Pruner
    from ivcp.engine.session import Session
    from ivcp.models.processor import Processor


@dataclass(frozen=True, repr=False)
class Reply:
    """One answer of a model.

    Attributes:
        text: What the model wrote.
        box: The first box in it, in pixels of the last image; None if it holds none.
        images: The images of the prompt.
        session: What was kept, and what it cost.
        read_clip: Reads the frames of the video that the model was shown; None without a video.
    """

    text: str
    box: Box | None
    images: tuple[Image.Image, ...]
    session: Session
    read_clip: Callable[[], Clip] | None = None

    def __repr__(self) -> str:
        (summary,) = self.session.summary()
        kept = f"{summary['kept_tokens']} of {summary['visual_tokens']} visual tokens kept"
        return f"Reply({self.text!r}, box={self.box}, {kept})"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows."""
        if not self.images and self.read_clip is None:
            return None
        file = BytesIO()
        self.draw().save(file, format="PNG")
        return file.getvalue()

    def draw(self, number: int = -1) -> Image.Image:
        """One of the images with the tokens that were kept of it, and the box on the last one.

        Without images it is the video, as a strip of frames.

        Args:
            number: Which image; by default the last one.

        Raises:
            UserError: There is no such image.
            OSError: The video cannot be read again.
        """
        if not self.images and self.read_clip is not None:
            return self.session.draw(self.read_clip())
        if not -len(self.images) <= number < len(self.images):
            raise UserError(f"There is no image {number}; the prompt had {len(self.images)}.")
        number %= len(self.images)
        box = self.box if number == len(self.images) - 1 else None
        before = len(self.session.layouts[0].images) - len(self.images)  # videos come first
        return self.session.draw(self.images[number], number=before + number, predicted=box)


def load(
    path: str | Path | None = None,
    *,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | torch.dtype = "auto",
    attention: str = "sdpa",
    device_map: str | None = None,
    **settings: Any,
) -> tuple[nn.Module, Processor]:
    """A model in evaluation mode and its processor, by the model type of the checkpoint.

    Args:
        path: A folder, or an id on the Hugging Face hub; None is the packaged small model.
        dtype: Of the weights, by its name or as torch has it; "auto" as they are stored.
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
    name = str(dtype).removeprefix("torch.")
    settings = {"dtype": name, "attention": attention, "device_map": device_map, **settings}
    return family_of(folder, **settings).load()


def ask(
    model: nn.Module,
    processor: Processor,
    image: Image.Image | str | Path | Sequence[Image.Image | str | Path],
    question: str,
    *,
    video: Video | str | Path | None = None,
    pruner: Pruner | None = None,
    task: Task = "open_ended",
    **generation: Any,
) -> Reply:
    """The model's answer to one question, with visual tokens pruned.

    Args:
        model: As `load` gave it; it may have been moved to another device since.
        processor: Likewise.
        image: The image or its file, or several; an empty list for none.
        question: Passed on as it is; for another task than "open_ended", worded as the model's
            family words that task ("grounding" takes an expression and asks for its box).
        video: A video or its file, which the prompt shows before the images.
        pruner: The method; None prunes nothing.
        task: The kind of answer.
        generation: Keyword arguments of `generate`; by default 128 tokens, greedily.

    Raises:
        UserError: The processor is of another kind, an image, the video, the question or the task
            is none, or the model cannot serve the pruner.
    """
    import torch

    import ivcp
    from ivcp.core.resizing import encode_for
    from ivcp.engine.generate_arguments import check_generation

    family = getattr(processor, "family", None)
    if family is None:
        raise UserError("processor must be what ivcp.load gave together with the model.")
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"question must be a text; got {question!r}.")
    if task not in get_args(Task):
        raise UserError(f"task must be one of {', '.join(get_args(Task))}; got {task!r}.")
    several = image if isinstance(image, Sequence) and not isinstance(image, str) else [image]
    images = tuple(map(_image, several))
    if isinstance(video, str | Path):
        video = Video(path=Path(video))
    sample = Sample(
        id="ask",
        task=task,
        images=images,
        question=question,
        answer="",
        verbatim=task == "open_ended",
        videos=() if video is None else (video,),
    )
    try:
        encoded = encode_for(pruner, family, processor, [sample])
    except OSError as error:
        raise UserError(f"The video cannot be read: {error}") from error
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in encoded.inputs.items()}
    generation = check_generation({"max_new_tokens": 128, "do_sample": False, **generation})
    resized = encoded.saved_tokens is not None  # so that nothing is left to prune
    method = ivcp.NoPruning() if pruner is None or resized else pruner
    with ivcp.pruned(model, method, family=family) as session, torch.no_grad():
        session.questions, session.visible_areas = [question], encoded.visible_areas
        session.saved_tokens = encoded.saved_tokens
        tokens = model.generate(**inputs, **generation)  # type: ignore[operator]
    text = family.decode(processor, tokens[:, inputs["input_ids"].shape[1] :])[0]
    box = family.parse_box(text) if task == "grounding" else None
    if box is not None:
        box = encoded.box_frames[0].to_pixels(box)
    read_clip = None if video is None else partial(family.read_clip, processor, video)
    return Reply(text, box, images, session, read_clip)


def _image(image: Image.Image | str | Path) -> Image.Image:
    """An image in RGB, as it is or from a file.

    Raises:
        UserError: It is neither an image nor a file that holds one.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, str | Path):
        raise UserError(
            f"image must be an image of PIL, the path of one, or a list of these; got a "
            f"{type(image).__name__} (Image.fromarray of PIL takes arrays)."
        )
    try:
        return decode(Path(image))
    except OSError as error:
        raise UserError(f"{image} cannot be read as an image ({error}).") from error
