from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ivcp.datasets.pixels import decode
from ivcp.datasets.places import data_root

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


def test_16_bit_grey_keeps_its_shades() -> None:
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    shades = np.asarray(decode(encoded(Image.fromarray(grey))))
    assert np.array_equal(shades, np.stack([grey >> 8] * 3, -1))


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


def test_an_image_far_too_large_is_an_error_of_reading(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(OSError, match="204 pixels"):
        decode(encoded(COLORS))


def test_an_absent_file_is_an_error_of_reading(tmp_path) -> None:
    with pytest.raises(OSError, match="none"):
        decode(tmp_path / "none.png")


def test_the_root_is_what_is_given_else_the_variable_else_the_home_folder(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("LMUData", "~/variable")
    assert data_root("~/given") == Path("/home/somebody/given")
    assert data_root(None) == Path("/home/somebody/variable")
    monkeypatch.delenv("LMUData")
    assert data_root(None) == Path("/home/somebody/LMUData")
