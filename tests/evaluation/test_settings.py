import pytest

from ivcp.core.errors import UserError
from ivcp.evaluation.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", 0), ("limit", "abc"), ("batch_size", 0), ("batch_size", None), ("workers", -1),
     ("seed", "x"), ("pictures", 1.5), ("batch_size", True)],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence(name, value) -> None:
    with pytest.raises(UserError, match=f"^{name} must be a whole number of at least"):
        Settings.of({name: value})


def test_other_keys_are_passed_over() -> None:
    assert Settings.of({"limit": 3, "ratio": 0.5}) == Settings(limit=3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("baseline", True, "null, auto, or the folder of a finished run; got True"),
     ("baseline", 3, "null, auto, or the folder of a finished run; got 3"),
     ("resume", 3, "true, false, or the folder of a run; got 3"),
     ("resume", None, "true, false, or the folder of a run; got None")],
)  # fmt: skip
def test_a_folder_of_another_kind(name, value, message) -> None:
    with pytest.raises(UserError, match=f"^{name} must be {message}"):
        Settings.of({name: value})


def test_generation_without_arguments() -> None:
    with pytest.raises(UserError, match="generation must hold keyword arguments"):
        Settings.of({"generation": None})


def test_more_workers_than_the_machine_bears(monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 32)
    assert Settings(workers=128).workers == 128
    with pytest.raises(UserError, match="workers must be at most 128 on a machine with 32 CPU c"):
        Settings(workers=129)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert Settings(workers=16).workers == 16
