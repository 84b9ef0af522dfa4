"""Images of documents, without lmms-eval."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ivcp.core.pixels import decode
from ivcp.integrations.lmms.visuals import UnsupportedTaskError, check_visuals, read_visual

RAMP = np.linspace(0, 65535, 2400).reshape(40, 60)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_grey_is_converted_as_run_py_converts_it(dtype, tmp_path) -> None:
    file = io.BytesIO()
    Image.fromarray(RAMP.astype(dtype)).save(file, "TIFF")
    (tmp_path / "ramp.tif").write_bytes(file.getvalue())
    expected = np.asarray(decode(file.getvalue()))
    assert expected.mean() == pytest.approx(127.5, abs=1)
    for visual in (Image.open(io.BytesIO(file.getvalue())), str(tmp_path / "ramp.tif")):
        assert np.array_equal(read_visual(visual), expected)


def test_images_and_image_files_are_accepted() -> None:
    check_visuals([Image.new("L", (9, 9)), "a/b.JPG", "photo.mpo", "no ending", "x.webp"], "t-0")


@pytest.mark.parametrize("visual", ["clip.mp4", "clip.mpg", "page.pdf", b"", None, 7])
def test_a_task_about_something_else_is_refused(visual) -> None:
    with pytest.raises(UnsupportedTaskError, match=r"t-0 has .*: choose a task about images"):
        check_visuals(["a.png", visual], "t-0")


@pytest.mark.parametrize("content", [b"", b"no image", EPS])
def test_what_is_no_image_is_an_error_of_reading(content, tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(OSError, match="in the format PNG or"):
        read_visual(str(tmp_path / "a.png"))
    with pytest.raises(OSError, match="absent"):
        read_visual(str(tmp_path / "absent.png"))
