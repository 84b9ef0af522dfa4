"""Methods by the names that papers give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_results import made_results
from omegaconf import OmegaConf

from ivcp.report.method_names import method_name

PRUNERS = Path(__file__).parents[2] / "conf" / "pruner"


def name_of(pruner: str, settings: Any) -> str:
    return method_name(made_results(pruner=pruner, config={"pruner": settings}).run)


@pytest.mark.parametrize("path", sorted(PRUNERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_method_of_the_package_goes_by_its_file(path: Path) -> None:
    settings = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert name_of(path.stem, settings) != path.stem


@pytest.mark.parametrize(
    ("pruner", "settings", "name"),
    [
        ("fastv", {"_target_": "ivcp.pruners.fastv.FastV"}, "FastV"),
        ("ivcp", {"_target_": "ivcp.pruners.ivcp.IVCPrune"}, "IVC-Prune"),
        ("fastervlm", {"_target_": "ivcp.pruners.vispruner.VisPruner"}, "FasterVLM"),
        ("my_fastv", {"_target_": "ivcp.pruners.fastv.FastV"}, "my_fastv"),
        ("my_fastv", {"_target_": "mine.my_fastv.MyFastV"}, "MyFastV"),
        ("mine", {"_target_": "mine.mine.Pruner"}, "mine"),
        ("mine", "text", "mine"),
        ("mine", {"_target_": 5}, "mine"),
        (
            "compose",
            {
                "_target_": "ivcp.pruners.compose.Compose",
                "parts": {
                    "first": {"_target_": "ivcp.pruners.visionzip.VisionZip"},
                    "second": {"_target_": "ivcp.pruners.ivcp.IVCPrune"},
                },
            },
            "VisionZip + IVC-Prune",
        ),
        (
            "plus_ivc",
            {
                "_target_": "ivcp.pruners.plus_ivc.PlusIVC",
                "base": {"_target_": "ivcp.pruners.dart.DART"},
                "added": "ivc",
            },
            "DART + IVC",
        ),
    ],
)
def test_names_are_those_of_papers(pruner: str, settings: Any, name: str) -> None:
    assert name_of(pruner, settings) == name
