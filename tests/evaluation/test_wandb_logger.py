from pathlib import Path

import pytest

from ivcp.core.errors import UserError
from ivcp.evaluation.wandb_logger import UnattendedWandbLogger, has_key

pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path: Path) -> None:
    for name in (
        "WANDB_API_KEY",
        "WANDB_IDENTITY_TOKEN_FILE",
        "WANDB_MODE",
        "WANDB_BASE_URL",
        "NETRC",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


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


def test_a_refusing_server_means_offline(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)

    def refuse(**_):
        raise RuntimeError("no route\nto host")

    monkeypatch.setattr("wandb.init", refuse)
    logger = UnattendedWandbLogger(save_dir=tmp_path, project="p")
    assert logger._wandb_init["mode"] == "offline"
    assert (
        "offline, since the server could not be used (no route to host)" in capsys.readouterr().err
    )
