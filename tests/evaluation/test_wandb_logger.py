import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from wandb_files import forget_credentials

from ivcp.core.errors import UserError
from ivcp.evaluation.wandb_logger import UnattendedWandbLogger, WandbRuns, has_key

pytest.importorskip("wandb")

NAMES = {"model": "tiny", "pruner": "fastv", "dataset": "shapes", "ratio": 0.3, "layers": [2, 4]}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path: Path) -> None:
    forget_credentials(monkeypatch, tmp_path)


def options(folder: Path, runs: WandbRuns, **changes: Any) -> dict[str, Any]:
    """The arguments of `wandb.init` for a made-up run in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wandb.init", lambda **_: None)
        return runs.named({**NAMES, **changes})(save_dir=folder)._wandb_init


def test_the_yaml_states_every_field_with_its_default() -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "logger" / "wandb.yaml")
    made = instantiate(config, _convert_="all")
    assert set(config) - {"_target_"} == {field.name for field in fields(WandbRuns)}
    assert replace(made, tags=tuple(made.tags)) == WandbRuns()


def test_a_run_is_named_and_tagged_by_what_it_is(tmp_path: Path) -> None:
    told = options(tmp_path / "run", WandbRuns())
    assert told["name"] == "tiny fastv 0.3 shapes"
    assert told["tags"] == ["tiny", "fastv", "shapes", "ratio 0.3"]
    assert (told["job_type"], told["project"]) == ("evaluation", "ivcp")
    assert "group" not in told


def test_runs_of_a_sweep_share_its_folders_as_their_group(tmp_path: Path) -> None:
    sweep = tmp_path / "multirun" / "2026-01-01" / "10-00-00"
    for name in ("0,pruner=none", "1,data.root=/a/b"):  # an override may hold slashes
        told = options(sweep / name, WandbRuns())
        (sweep / "multirun.yaml").touch()
        assert told.get("group") == (None if name.startswith("0") else "2026-01-01/10-00-00")


def test_everything_can_be_chosen(tmp_path: Path) -> None:
    runs = WandbRuns(
        project="p",
        entity="team",
        name="{pruner} before {layer}",
        group="ablation",
        job_type="sweep",
        tags=["{model}", "x" * 70, "{sweep}", "tiny"],
    )
    told = options(tmp_path / "run", runs)
    assert told["name"] == "fastv before 2+4"
    assert told["tags"] == ["tiny", "x" * 64]
    assert [told[key] for key in ("project", "entity", "group", "job_type")] == [
        "p", "team", "ablation", "sweep",
    ]  # fmt: skip


def test_other_settings_of_the_pruner_are_in_the_name(tmp_path: Path) -> None:
    told = options(tmp_path / "run", WandbRuns(), variant="prune_earlier_kv=false")
    assert told["name"] == "tiny fastv prune_earlier_kv=false 0.3 shapes"


def test_what_is_null_is_left_to_the_service(tmp_path: Path) -> None:
    runs = WandbRuns(name=None, group=None, job_type=None, tags=None)
    told = options(tmp_path / "run", runs)
    assert told["name"] is None
    assert not {"group", "job_type", "tags", "entity"} & told.keys()


def test_variables_of_the_service_win(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    monkeypatch.setenv("WANDB_TAGS", "mine")
    told = options(tmp_path / "run", WandbRuns(group="other"))
    assert not {"group", "tags"} & told.keys()
    assert told["name"] == "tiny fastv 0.3 shapes"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mode": "cloud"}, r"logger\.mode must be online or offline; got 'cloud'"),
        ({"name": "{modle}"}, r"logger\.name may hold \{model\}, .* got '\{modle\}'"),
        ({"group": "{"}, r"logger\.group may hold .* got '\{'"),
        ({"name": "{ratio:.2f}"}, r"logger\.name may hold .* got '\{ratio:\.2f\}'"),
        ({"tags": ["{}"]}, r"logger\.tags may hold .* got '\{\}'"),
        ({"project": "team/pruning"}, r"logger\.project must be a name .* got 'team/pruning'"),
        ({"project": "p" * 129}, r"logger\.project must be a name of 1 to 128"),
        ({"name": 3}, r"logger\.name must be a text or null; got 3"),
        ({"entity": 3}, r"logger\.entity must be a text or null; got 3"),
        ({"tags": "one"}, r"logger\.tags must be a list such as \[one\]"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(changes, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        WandbRuns(**changes)


def test_a_key_is_found_in_the_environment_and_in_netrc(monkeypatch, tmp_path: Path) -> None:
    assert not has_key()
    file = tmp_path / "credentials"
    file.write_text("machine api.wandb.ai login user password secret\n")
    monkeypatch.setenv("NETRC", str(file))
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert has_key()


def test_an_unreadable_netrc_is_no_key(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine")
    assert not has_key()


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"logger\.mode must be online or offline; got 'cloud'"):
        UnattendedWandbLogger(save_dir=tmp_path, project="p", mode="cloud")


@pytest.mark.parametrize("mode", ["ofline", "Online"])
def test_a_misspelt_variable_is_refused(monkeypatch, tmp_path: Path, mode) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(UserError, match=f"WANDB_MODE must be one of online, .* got '{mode}'"):
        UnattendedWandbLogger(save_dir=tmp_path, project="p")


def test_the_service_can_be_switched_off(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_DISABLED", "true")
    logger = UnattendedWandbLogger(save_dir=tmp_path, project="p")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.finalize("success")
    assert not list(tmp_path.rglob("*.wandb"))


def test_a_refusing_server_means_offline(monkeypatch, tmp_path: Path, caplog) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)

    def refuse(**options):
        if options["mode"] == "online":
            raise RuntimeError("no route\nto host")

    monkeypatch.setattr("wandb.init", refuse)
    with caplog.at_level(logging.WARNING):
        logger = UnattendedWandbLogger(save_dir=tmp_path, project="p")
    assert logger._wandb_init["mode"] == "offline"
    assert "offline, since the server could not be used (no route to host)" in caplog.text


def test_what_the_service_refuses_is_one_sentence(monkeypatch, tmp_path: Path) -> None:
    def refuse(**_):
        raise RuntimeError("no such\nentity")

    monkeypatch.setattr("wandb.init", refuse)
    with pytest.raises(UserError, match=r"Weights & Biases refuses the run: no such entity"):
        UnattendedWandbLogger(save_dir=tmp_path, project="p", mode="offline")
