"""Methods of another package, installed beside this one and used by name."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from command import run_py
from test_wheel import PACKAGE
from untrained import save_untrained

from ivcp.core.errors import UserError
from ivcp.core.plugins import PRUNERS, plugged
from ivcp.core.pruner import Pruner
from ivcp.testing import SMALL
from ivcp.testing.batches import small_families


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with a package of two files, as installers leave it."""
    (tmp_path / "strided.py").write_text(textwrap.dedent(PACKAGE["strided.py"]))
    info = tmp_path / "strided-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strided\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ivcp.pruners]\nstrided = strided:Strided\n")
    return tmp_path


def test_a_method_of_another_package_is_evaluated_by_name(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = save_untrained(tmp_path / "model", layers=4), tmp_path / "run"
    monkeypatch.syspath_prepend(str(elsewhere))
    code = run_py(
        "pruner=strided", "pruner.step=3", "ratio=0.3", "limit=2", f"model.path={model}",
        "trainer=cpu", "logger=none", "workers=0", "pictures=0", "generation.max_new_tokens=2",
        f"hydra.run.dir={out}",
    )  # fmt: skip
    assert code == 0
    report = json.loads((out / "metrics.json").read_text())
    assert report["run"]["pruner"] == "strided"
    assert report["run"]["config"]["pruner"]["step"] == 3
    assert report["run"]["layers"] == [2]
    assert report["tokens"]["keep_ratio"] == pytest.approx(0.3, abs=0.01)


def test_an_entry_point_that_is_no_method(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = elsewhere / "strided-1.0.dist-info"
    (info / "entry_points.txt").write_text("[ivcp.pruners]\nstrided = json:loads\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    with pytest.raises(UserError, match=r"'strided' of ivcp.pruners must give a Pruner class"):
        plugged(PRUNERS, Pruner)


def test_a_small_model_of_another_package(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "small.py").write_text(
        "from ivcp.testing.families.llava15 import FAMILY\nwrong = FAMILY.settings\n"
    )
    points = elsewhere / "strided-1.0.dist-info" / "entry_points.txt"
    points.write_text("[ivcp.testing]\nother = small:FAMILY\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    found = small_families()
    assert set(found) == {*SMALL, "other"}
    assert found["other"] is SMALL["llava15"]
    points.write_text("[ivcp.testing]\nother = small:wrong\n")
    with pytest.raises(UserError, match=r"'other' of ivcp.testing must give a SmallFamily"):
        small_families()


def test_every_method_can_be_imported_from_the_package() -> None:
    import ivcp
    from ivcp.pruners.fastv import FastV

    assert ivcp.FastV is FastV
    assert ivcp.IVCPrune.__module__ == "ivcp.pruners.ivcp"
    with pytest.raises(ImportError, match="cannot import name 'Unheard'"):
        exec("from ivcp import Unheard")
    with pytest.raises(AttributeError, match="no attribute 'torch'"):
        _ = ivcp.torch
