"""Pixels of every kind of image file, and files that are none or would cost too much."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import ivcp
from ivcp.core import pixels
from ivcp.core.pixels import decode, to_rgb

PACKAGE = Path(ivcp.__file__).parent

NOISE = np.random.default_rng(0).integers(0, 256, (12, 17, 4), dtype=np.uint8)
COLORS = Image.fromarray(NOISE[..., :3])


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_a_file_and_its_content_are_the_same_image(tmp_path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(COLORS))
    for source in (path, path.read_bytes()):
        image = decode(source)
        assert image.mode == "RGB"
        assert np.array_equal(image, NOISE[..., :3])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode) -> None:
    image = (COLORS if mode == "P" else Image.fromarray(NOISE)).convert(mode)
    content = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(decode(content), image.convert("RGB"))


def test_transparent_colours_are_those_that_are_stored() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(NOISE))), NOISE[..., :3])


@pytest.mark.parametrize("kind", ["PNG", "PPM", "TIFF"])
def test_16_bit_grey_keeps_its_shades(kind) -> None:
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    shades = np.asarray(decode(encoded(Image.fromarray(grey), kind)))
    assert np.array_equal(shades[..., 0], (grey.astype(int) + 128) // 257)
    assert np.array_equal(shades, np.stack([shades[..., 0]] * 3, -1))


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_a_dark_image_of_16_bits_stays_dark(kind) -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert np.asarray(decode(encoded(Image.fromarray(grey), kind))).max() == 1


@pytest.mark.parametrize(
    ("values", "shades"),
    [
        ([0, 1, 1, 0], [0, 255, 255, 0]),
        ([0, 1, 128, 255], [0, 1, 128, 255]),
        ([0, 257, 32896, 65535], [0, 1, 128, 255]),
        ([0, 100_000, 200_000, 50_000], [0, 128, 255, 64]),
        ([-7, 0, 255, 51], [0, 0, 255, 51]),
    ],
)
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_deep_grey_has_its_white_by_its_range(values, shades, dtype) -> None:
    grey = Image.fromarray(np.array([values], dtype=dtype))
    assert grey.mode == {np.int32: "I", np.float32: "F"}[dtype]
    for image in (decode(encoded(grey, "TIFF")), to_rgb(grey)):
        assert [pixel[0] for pixel in np.asarray(image)[0]] == shades


def test_values_that_are_no_numbers_are_black_or_white() -> None:
    grey = Image.fromarray(np.array([[0.5, np.nan, np.inf, -np.inf]], dtype=np.float32))
    assert [pixel[0] for pixel in np.asarray(to_rgb(grey))[0]] == [128, 0, 255, 0]


def test_an_image_in_memory_is_converted_like_its_file() -> None:
    for image in (COLORS, Image.fromarray(NOISE), COLORS.convert("L")):
        assert np.array_equal(to_rgb(image), decode(encoded(image)))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_orientation_is_not_followed_and_not_left_for_others_to_follow(orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(COLORS, exif=exif))
    assert np.array_equal(image, NOISE[..., :3])
    assert 0x0112 not in image.getexif()


def broken() -> dict[str, bytes]:
    png, jpeg = encoded(COLORS), encoded(COLORS, "JPEG")
    damaged = bytearray(png)
    damaged[20:24] = b"\0\0\0\0"
    return {
        "empty": b"",
        "text": b"<html>no photo</html>",
        "truncated png": png[: len(png) // 2],
        "truncated jpeg": jpeg[: len(jpeg) - 60],
        "header": bytes(damaged),
        "chunk": png[:33] + b"\0\0\0\4xxxx" + png[41:],
    }


@pytest.mark.parametrize("name", broken())
def test_what_cannot_be_decoded_is_an_error_of_reading(name) -> None:
    with pytest.raises(OSError, match=r"."):
        decode(broken()[name])


def test_other_errors_of_a_decoder_are_errors_of_reading(monkeypatch) -> None:
    def stumble(*_):
        raise KeyError("palette")

    monkeypatch.setattr(Image.Image, "convert", stumble)
    with pytest.raises(OSError, match="palette"):
        decode(encoded(COLORS))


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A black image of one bit a pixel."""
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b""))
    )


@pytest.mark.parametrize("size", [(13_300, 13_300), (178_000_000, 1), (50_000, 8000)])
def test_too_many_pixels_are_refused_by_the_header(size, monkeypatch) -> None:
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    monkeypatch.setattr(PngImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OSError, match="at most 100,000,000 pixels"):
            decode(png(*size))


def test_as_many_pixels_as_allowed_are_fine(monkeypatch) -> None:
    monkeypatch.setattr(pixels, "MAX_PIXELS", 204)
    assert decode(encoded(COLORS)).size == (17, 12)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 203)
    for read in (lambda: decode(encoded(COLORS)), lambda: to_rgb(COLORS)):
        with pytest.raises(OSError, match="at most 203 pixels; got one of 17 x 12"):
            read()


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_that_unpacks_to_much_more_is_refused_or_skipped(kind) -> None:
    fields = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind]
    content = fields + zlib.compress(bytes(100_000_000))
    file = png(8, 8, (kind, content))
    tracemalloc.start()
    with contextlib.suppress(OSError):
        decode(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        encoded(COLORS, "ICO"),
        encoded(COLORS, "PDF"),
        b"\xd7\xcd\xc6\x9a" + bytes(99),
    ],
    ids=["EPS", "ICO", "PDF", "WMF"],
)
def test_only_rasters_are_opened(content, monkeypatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(OSError, match="an image in the format PNG or JPEG or WEBP"):
        decode(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_common_formats_are_opened(kind) -> None:
    assert decode(encoded(COLORS, kind)).size == COLORS.size


def test_no_part_of_the_package_opens_images_otherwise() -> None:
    """Without `formats`, bytes of an EPS file reach Ghostscript."""
    lines = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if "Image.open(" in line and "formats=" not in line
    ]
    assert lines == []


def test_an_absent_file_is_an_error_of_reading(tmp_path) -> None:
    with pytest.raises(OSError, match="none"):
        decode(tmp_path / "none.png")
