"""Qwen's video inputs: frames, sizes, patches, positions and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from expected import EXPECTED
from made_clips import write_clip
from PIL import Image
from processing import setup
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.core.video import Video
from ivcp.models.video_frames import fitted_size, pairs_of_frames
from ivcp.models.video_positions import video_positions
from ivcp.pruners.ivcp import IVCPrune
from ivcp.testing import SMALL, model_of

FAMILIES = ("qwen2vl", "qwen25vl", "qwen3vl")
RULE: dict[str, Any] = {"frames": None, "fps": 2.0, "least": 4, "most": 768}
NOISE = torch.Generator().manual_seed(7)


def noise(width: int, height: int) -> Image.Image:
    """Blocks of random colours."""
    blocks = torch.randint(0, 256, (height // 8, width // 8, 3), generator=NOISE).byte()
    return Image.fromarray(blocks.numpy()).resize((width, height))


def clip(frames: int, size: tuple[int, int] = (56, 40), seconds: float = 0.5) -> Video:
    times = tuple(seconds * number for number in range(frames))
    return Video(frames=tuple(noise(*size) for _ in times), times=times)


def sample(*videos: Video, images: Sequence[Image.Image] = (), name: str = "s") -> Sample:
    return Sample(
        id=name, task="open_ended", images=tuple(images), videos=videos,
        question="what moves " + name, answer="", verbatim=True,
    )  # fmt: skip


def full_size(name: str, folder: Path, **fields: Any) -> Any:
    """A family and its processor with the published sizes of patches."""
    return setup(name, folder, published=EXPECTED[name].full_size, **fields)


@pytest.mark.parametrize(
    ("total", "rate", "changes", "count"),  # by qwen-vl-utils 0.0.14, worked out by hand
    [
        (300, 30.0, {}, 20), (300, 30.0, {"frames": 7}, 8), (300, 30.0, {"frames": 1}, 2),
        (45, 30.0, {}, 4),  # 3 by the rate, 4 at least
        (30_000, 25.0, {}, 768), (30_000, 25.0, {"most": 64}, 64), (250, 25.0, {"fps": 1.5}, 14),
        (9, 30.0, {"frames": 32}, 8), (3, 30.0, {}, 2), (1, 30.0, {}, 1),
    ],
)  # fmt: skip
def test_numbers_of_frames(total, rate, changes, count) -> None:
    indices = pairs_of_frames(total, rate, **{**RULE, **changes})
    assert len(indices) == count
    assert indices[0] == 0
    assert count == 1 or indices[-1] == total - 1
    assert indices == sorted(indices)


@pytest.mark.parametrize(
    ("frames", "size", "fields", "tokens"),  # of a pair; 28 pixels a token
    [
        (32, (640, 360), {}, 23 * 13),  # 22.9 x 12.9 cells: between the limits
        (32, (1920, 1080), {}, 36 * 20),  # at most 768: 68.6 x 38.6 cells shrunk by 1.85
        (32, (160, 90), {}, 16 * 9),  # at least 128: 6 x 3 cells are too few
        (768, (1920, 1080), {}, 23 * 12),  # at most 115200 in 384 pairs, 300 each
        (768, (640, 360), {"max_video_tokens": 768}, 15 * 8),  # not below 1.05 times the least
        (4, (640, 360), {"min_frame_tokens": 4, "max_frame_tokens": 20}, 5 * 3),  # 6.0 x 3.4
    ],
)  # fmt: skip
def test_sizes_of_frames(tmp_path, frames, size, fields, tokens) -> None:
    family, processor = full_size("qwen25vl", tmp_path, frames=frames, **fields)
    image = Image.new("RGB", size)
    video = Video(frames=(image,) * frames, times=tuple(map(float, range(frames))))
    read = family.read_clip(processor, video)
    assert read.frames.shape[0] == frames
    assert read.frames.shape[2] * read.frames.shape[3] == tokens * 28 * 28
    assert read.size == size


def test_a_frame_is_too_thin() -> None:
    with pytest.raises(ValueError, match="more than 200"):
        fitted_size(4, 900, cell=28, min_pixels=1, max_pixels=10**6)


@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [
        (name, frames, size)
        for name in FAMILIES
        for frames in (1, 4, 5)
        for size in ((640, 360), (1000, 1200), (150, 400))
        # the library's Qwen3-VL refuses a single frame, and has no least size of each frame
        if name != "qwen3vl" or (frames > 1 and size != (150, 400))
    ],
)
def test_pixels_are_those_of_the_library(tmp_path, name, frames, size) -> None:
    pytest.importorskip("torchvision")
    import transformers

    kind = "Qwen3VLVideoProcessor" if name == "qwen3vl" else "Qwen2VLVideoProcessor"
    family, processor = full_size(name, tmp_path)
    images = tuple(noise(*size) for _ in range(frames))
    video = Video(frames=images, times=tuple(map(float, range(frames))))
    cell = processor.images.patch_size * 2
    least, most = (128, 768) if name != "qwen3vl" else (1, 2 * 115_200)
    library = getattr(transformers, kind)(
        size={"shortest_edge": least * cell**2, "longest_edge": most * cell**2},
        patch_size=processor.images.patch_size, image_mean=processor.images.image_mean,
        image_std=processor.images.image_std, cap_pixels_per_frame=True,
    )  # fmt: skip
    clip = video.read(lambda total, rate: list(range(frames)))
    expected = library([clip.frames], return_tensors="pt", do_sample_frames=False)
    read = video.read(
        lambda total, rate: list(range(frames)),
        lambda count, width, height: fitted_size(
            width, height, cell=cell, min_pixels=128 * cell**2, max_pixels=768 * cell**2
        ),
    )
    found = family.process_videos(processor, [read]).inputs
    assert torch.equal(found["video_grid_thw"], expected["video_grid_thw"])
    difference = (found["pixel_values_videos"] - expected["pixel_values_videos"]).abs()
    assert difference.max() < 1e-5


@pytest.mark.parametrize("frames", [2, 5])
def test_times_in_the_text_are_the_library_s(tmp_path, frames) -> None:
    family, processor = full_size("qwen3vl", tmp_path)
    indices = [3 * number for number in range(frames)]
    video = clip(frames, (640, 352), seconds=3 / 25)
    read = video.read(lambda total, rate: list(range(frames)))
    processed = family.process_videos(processor, [read])
    library = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        vision_start_token="<|vision_start|>", vision_end_token="<|vision_end|>",
        video_token="<|video_pad|>", _calculate_timestamps=None,
    )  # fmt: skip
    library._calculate_timestamps = Qwen3VLProcessor._calculate_timestamps.__get__(library)
    metadata = VideoMetadata(total_num_frames=999, fps=25.0, frames_indices=list(indices))
    inputs = {"video_grid_thw": processed.inputs["video_grid_thw"], "video_metadata": [metadata]}
    (text,) = processed.texts
    assert text == Qwen3VLProcessor.replace_video_token(library, inputs, 0)
    assert text.startswith("<0.1 seconds><|vision_start|><|video_pad|>")  # 0 and 0.12
    assert text.count("<|video_pad|>") == (frames + 1) // 2 * 20 * 11
    # the chat template's own markers are replaced, as the library did when the model was released
    encoded = family.encode(processor, [sample(video)])
    decoded = processor.tokenizer.decode(encoded.inputs["input_ids"][0])
    assert "<|vision_start|><0" not in decoded
    assert "user\n<0.1 seconds>" in decoded


def test_positions_by_hand() -> None:
    # 2 of text, 3 moments of 1 x 2 tokens that are 5 apart, 2 of text, an image of 2 x 1, 1 of text
    types = torch.tensor([[0, 0, *[2] * 6, 0, 0, 1, 1, 0], [0] * 11 + [0, 0]])
    mask = torch.ones_like(types)
    mask[1, :11] = 0
    positions = video_positions(types, mask, [(1, 2, 1)], [(3, 1, 2)], [5.0])
    time = [0, 1, 2, 2, 7, 7, 12, 12, 13, 14, 15, 15, 17]
    height = [0, 1, 2, 2, 2, 2, 2, 2, 13, 14, 15, 16, 17]
    width = [0, 1, 2, 3, 2, 3, 2, 3, 13, 14, 15, 15, 17]
    assert positions[:, 0].tolist() == [time, height, width]
    assert positions[:, 1].tolist() == [[0] * 11 + [0, 1]] * 3


@pytest.mark.parametrize("name", ["qwen2vl", "qwen25vl"])
def test_positions_are_the_library_s_where_a_video_is_short(tmp_path, name) -> None:
    family, processor = setup(name, tmp_path, min_frame_tokens=1)
    model = model_of(name)
    image = noise(64, 48)
    samples = [
        sample(clip(4), images=[image]), sample(images=[image], name="longer"), sample(clip(2)),
    ]  # fmt: skip
    inputs = family.encode(processor, samples).inputs
    types, config = inputs["mm_token_type_ids"], model.config
    assert types.unique().tolist() == [0, 1, 2]
    assert config.vision_config.spatial_merge_size == 2
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    passed = {name: inputs[name] for name in names if name in inputs}
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], mm_token_type_ids=types, **passed
    )
    real = inputs["attention_mask"].bool()
    assert torch.equal(inputs["position_ids"][:, real], positions[:, real])


def test_seconds_of_a_pair_reach_the_positions(tmp_path) -> None:
    family, processor = setup("qwen25vl", tmp_path, min_frame_tokens=1, frames=6)
    per_second = processor.config.vision_config.tokens_per_second
    inputs = family.encode(processor, [sample(clip(12, seconds=2.0), clip(6, seconds=0.5))]).inputs
    assert inputs["second_per_grid_ts"].tolist() == [8.0, 1.0]  # 24 s in 3 pairs, 3 s in 3
    time = inputs["position_ids"][0, 0][inputs["mm_token_type_ids"][0] == 2]
    steps = time.unique().diff().tolist()
    assert steps[:2] == [8 * per_second] * 2
    assert steps[3:] == [per_second] * 2
    behind = inputs["position_ids"][:, 0, -1]
    assert behind.min() > time.max()  # text is numbered behind the last moment


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_keeps_what_single_prompts_keep(tmp_path, name) -> None:
    family, processor = setup(name, tmp_path, min_frame_tokens=1, frames=6)
    model = model_of(name)
    samples = [
        sample(clip(3)), sample(clip(8, (80, 48)), clip(4), name="two clips"),
        sample(clip(6), images=[noise(64, 48)], name="a clip and an image"),
        sample(images=[noise(48, 64)], name="an image"),
    ]  # fmt: skip

    def run(batch: Sequence[Sample]) -> tuple[Any, Any]:
        inputs = family.encode(processor, batch).inputs
        inputs["input_ids"] = small_ids(inputs["input_ids"], processor, model)
        options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
        with pruned(model, IVCPrune(keep_ratio=0.4, layer=3), family=family) as session:
            output = model.generate(
                **inputs, **options, output_logits=True, return_dict_in_generate=True
            )
        return session, torch.stack(output.logits, 1)

    together, logits = run(samples)
    for number, each in enumerate(samples):
        alone, expected = run([each])
        assert torch.equal(alone.kept[0], together.kept[number])
        assert alone.layouts[0].images == together.layouts[number].images
        assert torch.allclose(expected[0], logits[number], atol=1e-4)
        grids = [[grid.kind for grid in image.grids] for image in alone.layouts[0].images]
        assert [kinds[0] for kinds in grids] == ["frame"] * len(each.videos) + ["image"] * len(
            each.images
        )
        kept = sum(round(0.4 * image.length) for image in alone.layouts[0].images)
        assert len(alone.kept[0]) == kept
    assert [len(image.grids) for image in together.layouts[1].images] == [3, 2]


@pytest.mark.parametrize("name", FAMILIES)
def test_beams_keep_the_same_tokens(tmp_path, name) -> None:
    family, processor = setup(name, tmp_path, min_frame_tokens=1, frames=6)
    model = model_of(name)
    inputs = family.encode(processor, [sample(clip(6)), sample(clip(3), name="longer")]).inputs
    inputs["input_ids"] = small_ids(inputs["input_ids"], processor, model)
    kept = []
    for beams in (1, 2):
        with pruned(model, IVCPrune(keep_ratio=0.4, layer=3), family=family) as session:
            model.generate(**inputs, max_new_tokens=3, do_sample=False, num_beams=beams)
        assert len(session.kept) == 2 * beams
        kept.append(session.kept[::beams])
    assert all(map(torch.equal, *kept))


def small_ids(ids: torch.Tensor, processor: Any, model: Any) -> torch.Tensor:
    """Ids of the small model's vocabulary for those of a tokenizer of bytes."""
    known = {
        name: processor.tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    small = ids % 80 + 2
    config = model.config
    small[ids == known["image_pad"]] = config.image_token_id
    small[ids == known["video_pad"]] = config.video_token_id
    small[ids == known["vision_start"]] = config.vision_start_token_id
    small[ids == known["vision_end"]] = config.vision_end_token_id
    return small


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frames": 0}, r"^model\.frames must be at least 1, or null; got 0\.$"),
        ({"fps": 0.0}, r"^model\.fps must be above 0; got 0\.0\.$"),
        ({"fps": float("inf")}, r"^model\.fps must be above 0; got inf\.$"),
        ({"min_frames": 9, "max_frames": 8}, r"^model\.min_frames must .* got 9 and 8\.$"),
        ({"min_frames": 0}, r"^model\.min_frames must be at least 1 .* got 0 and 768\.$"),
        ({"min_frame_tokens": 0}, r"^model\.min_frame_tokens must be at least 1 .* 0, 768 and"),
        ({"max_frame_tokens": 9}, r"got 128, 9 and 115200\.$"),
        ({"max_video_tokens": 700}, r"got 128, 768 and 700\.$"),
        ({"frames": "8"}, r"model\.frames"),
    ],
)  # fmt: skip
def test_settings_that_choose_nothing_are_refused(name, fields, message) -> None:
    with pytest.raises(UserError, match=message):
        SMALL[name].family(**fields)


def test_a_clip_shorter_than_the_frames(tmp_path) -> None:
    family, processor = setup("qwen25vl", tmp_path, min_frame_tokens=1, frames=32)
    path = write_clip(tmp_path / "a.mp4", frames=9)
    read = family.read_clip(processor, Video(path=path))
    assert len(read.frames) == 8
