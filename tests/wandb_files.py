"""Reads an offline run of Weights & Biases back from the file that `wandb sync` would send."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SWITCHES = (
    "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_DISABLED",
    "WANDB_JOB_TYPE", "WANDB_MODE", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_TAGS", "NETRC",
)  # fmt: skip


@dataclass
class OfflineRun:
    """The records of one run; keys of nested values are joined by dots."""

    folder: Path
    started: float = 0.0
    name: str = ""
    group: str = ""
    job_type: str = ""
    project: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, set[str]] = field(default_factory=dict)

    def table(self, key: str) -> dict[str, Any]:
        """A logged table: its columns and rows."""
        return json.loads((self.folder / "files" / self.summary[f"{key}.path"]).read_text())


def forget_credentials(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Remove keys, and switches that change what is logged."""
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))


def read_runs(folder: Path) -> list[OfflineRun]:
    """All offline runs below a folder, oldest first."""
    import wandb

    wandb.teardown()  # the process that writes the files may still hold their ends
    files = folder.rglob("offline-run-*/run-*.wandb")
    return sorted(map(_read, files), key=lambda run: run.started)


def _read(path: Path) -> OfflineRun:
    from wandb.proto.wandb_internal_pb2 import Record

    run = OfflineRun(path.parent)
    for record in map(Record.FromString, _records(path)):
        match record.WhichOneof("record_type"):
            case "run":
                run.name, run.project, run.tags = (
                    record.run.display_name,
                    record.run.project,
                    tuple(record.run.tags),
                )
                run.group, run.job_type = record.run.run_group, record.run.job_type
                run.started = record.run.start_time.seconds + record.run.start_time.nanos / 1e9
                run.config |= dict(_values(record.run.config.update))
            case "config":
                run.config |= dict(_values(record.config.update))
            case "history":
                run.history |= dict(_values(record.history.item))
            case "summary":
                run.summary |= dict(_values(record.summary.update))
            case "artifact":
                contents = record.artifact.manifest.contents
                run.artifacts.setdefault(record.artifact.type, set()).update(
                    entry.path for entry in contents
                )
    return run


def _values(items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for item in items:
        yield from _leaves(".".join(item.nested_key) or item.key, json.loads(item.value_json))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, value


def _records(path: Path) -> Iterator[bytes]:
    """Serialized records: LevelDB's log format behind a header of 7 bytes."""
    data, block, at, parts = path.read_bytes(), 32768, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:  # no record header crosses the border of a block
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a complete record, or the last part of one
            yield parts
            parts = b""
