"""Folders of benchmark files, and images that leave them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ivcp.core.errors import UserError
from ivcp.datasets.data_root import data_root, first_file, image_file, user_path


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


def test_a_root_that_is_a_file_or_closed(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.root .* must be a folder; .*/file is none"):
        data_root(str(tmp_path / "file"))
    monkeypatch.setenv("LMUData", str(tmp_path / "file"))
    with pytest.raises(UserError, match="must be a folder"):
        data_root(None)
    assert data_root(str(tmp_path / "absent")) == tmp_path / "absent"


def closed(*paths: Path):
    """`os.stat` as it is for somebody who must not look into these folders."""
    stat = os.stat

    def refuse(path, **options):
        if any(str(path).startswith(f"{folder}/") for folder in paths):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    return refuse


def test_a_folder_that_is_closed(tmp_path, monkeypatch) -> None:
    (tmp_path / "closed" / "inner").mkdir(parents=True)
    assert user_path(str(tmp_path / "closed")).is_dir()
    monkeypatch.setattr("os.stat", closed(tmp_path / "closed"))
    for name in ("closed", "closed/inner", "closed/file.tsv"):
        with pytest.raises(UserError, match=rf"/{name}' cannot be read \(.*Permission denied"):
            user_path(str(tmp_path / name))


def test_the_first_file_of_several(tmp_path, monkeypatch) -> None:
    (tmp_path / "b.tsv").touch()
    (tmp_path / "folder.tsv").mkdir()
    names = [tmp_path / name for name in ("a.tsv", "b.tsv", "folder.tsv")]
    assert first_file(names) == tmp_path / "b.tsv"
    assert first_file(names[:1]) is None
    with pytest.raises(UserError, match=r"Expected a file at .*/folder\.tsv; it is a folder"):
        first_file(reversed(names))
    monkeypatch.setattr("os.stat", closed(tmp_path))
    with pytest.raises(UserError, match=r"a\.tsv cannot be read \(Permission denied\)"):
        first_file(names)


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
