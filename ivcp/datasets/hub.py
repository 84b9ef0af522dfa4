"""The RefCOCO family as lmms-eval publishes it on the Hugging Face hub: one row for each object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError
from ivcp.datasets.expressions import Expression, coco_number, corners_or_reason, distinct

IDS = {
    "refcoco": "lmms-lab/RefCOCO",
    "refcocoplus": "lmms-lab/RefCOCOplus",
    "refcocog": "lmms-lab/RefCOCOg",
}
MIXED = {
    ("refcoco", "val"): "3,811 objects of the unc scheme and 5,000 of google's",
    ("refcocog", "val"): "2,573 objects of the umd scheme and 5,000 of google's",
}
COLUMNS = ("question_id", "answer", "bbox")


def refuse_mixed(name: str, split: str) -> None:
    """Refuse the splits of the published sets that do not hold the samples of their names.

    Counted on the dataset cards: RefCOCO `val` has 8,811 rows, RefCOCOg `val` 7,573.

    Raises:
        UserError: The split is one of them.
    """
    if (name, split) == ("refcoco", "test"):
        raise UserError(
            f"The split test of {IDS[name]} is google's, which is no part of the published "
            "results; use testA or testB."
        )
    if (name, split) in MIXED:
        raise UserError(
            f"The split {split} of {IDS[name]} mixes {MIXED[name, split]}, so its results compare "
            "with no published ones; use data.refcoco=mdetr, or leave the split out."
        )


def usual_place(name: str, root: Path) -> str:
    """The folder of the set's name in the root if there is one, else the set's hub id."""
    folder = root / IDS[name].rpartition("/")[2]
    return str(folder) if folder.is_dir() else IDS[name]


@dataclass(frozen=True)
class HubRows:
    """Expressions whose photos are cells of a table.

    Attributes:
        rows: A `datasets.Dataset` whose column `image` is left encoded.
        entries: The expressions; `image` is the number of a row.
    """

    rows: Any
    entries: Sequence[Expression]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Expression:
        return self.entries[index]

    def picture(self, expression: Expression) -> bytes | Path:
        cell = self.rows[expression.image]["image"] or {}
        if cell.get("bytes"):
            encoded: bytes = cell["bytes"]
            return encoded
        if cell.get("path"):
            return Path(cell["path"])
        raise OSError(f"row {expression.image} has no image")


def read_hub(place: str, split: str) -> HubRows:
    """The expressions of one split, an object's one after the other.

    An id is the row's `question_id` and the number of the expression among those of that id.

    Args:
        place: Folder of `Dataset.save_to_disk`, folder of parquet files, or hub id.
        split: Name of the split.

    Raises:
        UserError: The library `datasets` is missing, or the set cannot be had or has other columns.
    """
    try:
        library = import_module("datasets")
    except ImportError as error:
        raise UserError(
            "data.refcoco=hub needs the package datasets; pip install ivcp[hub]."
        ) from error
    rows = _load(library, place, split)
    absent = [name for name in ("image", *COLUMNS) if name not in rows.column_names]
    if absent:
        raise UserError(
            f"Expected the columns image, {', '.join(COLUMNS)} in {place}; "
            f"{', '.join(absent)} missing among {', '.join(rows.column_names)}."
        )
    rows = rows.cast_column("image", library.Image(decode=False))
    names = [*COLUMNS, *({"file_name"} & set(rows.column_names))]
    table = rows.select_columns(names).with_format(None)[:]
    files = table.get("file_name") or [""] * len(rows)
    columns = [table[name] for name in COLUMNS]
    entries, told = [], Counter[str]()
    for number, (identity, texts, box) in enumerate(zip(*columns, strict=True)):
        where = f"row {number} of {place}"
        if not isinstance(texts, list):
            raise UserError(f"Expected a list of expressions as answer in {where}; got {texts!r}.")
        found, reason = corners_or_reason(box, where)
        for text in texts:
            entries.append(
                Expression(
                    id=f"{identity}-{told[identity]}",
                    text=text,
                    box=found,
                    broken=reason,
                    size=None,
                    image=number,
                    coco_id=coco_number(files[number] or ""),
                )
            )
            told[identity] += 1
    distinct(entries, place)
    return HubRows(rows, entries)


def _load(library: Any, place: str, split: str) -> Any:
    """The split's table, from disk where `place` is a folder."""
    folder = Path(place).expanduser()
    local = folder.is_dir()
    if not local and (place.startswith(("/", ".", "~")) or place.count("/") != 1):
        raise UserError(
            f"Expected dataset.annotations to be a folder with a saved data set or a hub id like "
            f"lmms-lab/RefCOCO; got {place!r}, which is neither."
        )
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        if not local:
            _reach(library, place)
        if not saved:
            return library.load_dataset(str(folder) if local else place, split=split)
        rows = library.load_from_disk(str(folder))
    except (OSError, ValueError, library.exceptions.DatasetsError) as error:
        reason = str(error).strip().split("\n")[0]
        elsewhere = (
            f"fetch it where the hub can be reached (hf download --repo-type dataset {place}) and "
            "point dataset.annotations at the folder, or set HF_HUB_OFFLINE=1 if an earlier run "
            "has fetched it"
        )
        raise UserError(
            f"The split {split} of {place} could not be loaded ({reason}); "
            f"{'check the files' if local else elsewhere}."
        ) from error
    if not isinstance(rows, library.DatasetDict):
        return rows
    if split not in rows:
        raise UserError(f"{folder} has no split {split}; it has {', '.join(rows)}.")
    return rows[split]


def _reach(library: Any, place: str) -> None:
    """Ask the hub once for a set; the library itself would try for half a minute.

    Raises:
        ConnectionError: It does not answer.
    """
    if library.config.HF_HUB_OFFLINE:
        return
    hub = import_module("huggingface_hub")
    try:
        hub.HfApi(endpoint=library.config.HF_ENDPOINT).dataset_info(place, timeout=5)
    except hub.errors.HfHubHTTPError:
        return  # it answers; the library says what
    except Exception as error:  # of whatever library speaks to the hub
        raise ConnectionError(f"{library.config.HF_ENDPOINT} does not answer: {error}") from error
