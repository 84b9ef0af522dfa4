"""Folders of benchmark files, and images that leave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ivcp.core.errors import UserError
from ivcp.datasets.data_root import data_root, image_file, user_path


def test_the_root_is_what_is_given_else_the_variable_else_the_home_folder(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("LMUData", "~/variable")
    assert data_root("~/given") == Path("/home/somebody/given")
    assert data_root(None) == Path("/home/somebody/variable")
    monkeypatch.delenv("LMUData")
    assert data_root(None) == Path("/home/somebody/LMUData")


@pytest.mark.parametrize("path", ["~nobody-of-this-name", "~nobody-of-this-name/data"])
def test_an_unknown_home_folder_is_one_sentence(path) -> None:
    for read in (user_path, data_root):
        with pytest.raises(UserError, match=r"got '~nobody.*', whose home folder is unknown"):
            read(path)


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Two folders with an image each, beside a file and under a link."""
    for name in ("a", "b/sub", "secret"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a/1.png", "b/sub/2.png", "secret/3.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "link.png").symlink_to(tmp_path / "secret" / "3.png")
    (tmp_path / "a" / "inner.png").symlink_to(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    return [tmp_path / "a", tmp_path / "link"]


def test_images_in_the_folders_are_found(folders, tmp_path) -> None:
    inside = {
        "1.png": "a/1.png", "sub/2.png": "link/sub/2.png", str(tmp_path / "a/1.png"): "a/1.png",
        "sub/../sub/2.png": "link/sub/../sub/2.png", "inner.png": "a/inner.png",
        "absent.png": "link/absent.png", "../link/sub/2.png": "a/../link/sub/2.png",
    }  # fmt: skip
    for name, path in inside.items():
        assert image_file(name, folders, anywhere=False) == tmp_path / path


@pytest.mark.parametrize(
    "name", ["../secret/3.png", "sub/../../secret/3.png", "{tmp_path}/secret/3.png", "link.png",
             "/etc/hostname.png", "../absent.png"],
)  # fmt: skip
def test_images_elsewhere_need_a_setting(folders, tmp_path, name) -> None:
    name = name.format(tmp_path=tmp_path)
    with pytest.raises(UserError, match=r"lies outside of .*/a and .*data\.images_anywhere=true"):
        image_file(name, folders, anywhere=False)
    assert image_file(name, folders, anywhere=True).name == Path(name).name


@pytest.mark.parametrize("name", ["a\0.png", "x" * 300 + ".png", "half \ud83d.png", "loop.png"])
@pytest.mark.parametrize("anywhere", [True, False])
def test_what_no_file_can_be_called_is_one_error_of_a_sample(folders, name, anywhere) -> None:
    with pytest.raises((UserError, OSError, ValueError), match=r"."):
        image_file(name, folders, anywhere).open()
