"""The RefCOCO family as lmms-eval publishes it on the Hugging Face hub: one row for each object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError
from ivcp.datasets.annotation_values import brief, corners_or_reason
from ivcp.datasets.data_root import image_file, user_path
from ivcp.datasets.expressions import Expression, check_distinct, coco_number, make_expression

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


def usual_source(name: str, root: Path) -> str:
    """The folder of the set's name in the root if there is one, else the set's hub id."""
    folder = root / IDS[name].rpartition("/")[2]
    return str(folder) if folder.is_dir() else IDS[name]


@dataclass(frozen=True)
class HubRows:
    """Expressions whose images are cells of a table.

    Attributes:
        rows: A `datasets.Dataset` whose column `image` is left encoded.
        entries: The expressions; `image` is the number of a row.
        folder: Where the files lie that cells name.
        anywhere: Whether cells may name files outside of it.
    """

    rows: Any
    entries: Sequence[Expression]
    folder: Path
    anywhere: bool = False

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Expression:
        return self.entries[index]

    def encoded_image(self, expression: Expression) -> bytes | Path:
        cell = self.rows[expression.image]["image"] or {}
        if cell.get("bytes"):
            encoded: bytes = cell["bytes"]
            return encoded
        if cell.get("path"):
            return image_file(cell["path"], [self.folder], self.anywhere)
        raise OSError(f"row {expression.image} has no image")


def read_hub(source: str, split: str, anywhere: bool = False) -> HubRows:
    """The expressions of one split, an object's one after the other.

    An id is the row's `question_id` and the number of the expression among those of that id.

    Args:
        source: Folder of `Dataset.save_to_disk`, folder of parquet files, or hub id.
        split: Name of the split.
        anywhere: Whether cells may name image files outside of the folder, or of the hub's cache.

    Raises:
        UserError: The library `datasets` is missing, or the set cannot be had or has other columns.
    """
    try:
        library = import_module("datasets")
    except ImportError as error:
        raise UserError(
            "data.refcoco=hub needs the package datasets; pip install ivcp[hub]."
        ) from error
    folder = user_path(source)
    local = folder.is_dir()
    rows = _load_local(library, folder, split) if local else _load_remote(library, source, split)
    absent = [name for name in ("image", *COLUMNS) if name not in rows.column_names]
    if absent:
        raise UserError(
            f"Expected the columns image, {', '.join(COLUMNS)} in {source}; "
            f"{', '.join(absent)} missing among {', '.join(rows.column_names)}."
        )
    rows = rows.cast_column("image", library.Image(decode=False))
    names = [*COLUMNS, *({"file_name"} & set(rows.column_names))]
    table = rows.select_columns(names).with_format(None)[:]
    files = table.get("file_name") or [""] * len(rows)
    columns = [table[name] for name in COLUMNS]
    entries, counts = [], Counter[str]()
    for number, (identity, texts, box) in enumerate(zip(*columns, strict=True)):
        where = f"row {number} of {source}"
        if not isinstance(texts, list):
            raise UserError(
                f"Expected a list of expressions as answer in {where}; got {brief(texts)}."
            )
        question_id, corners = str(identity), corners_or_reason(box, where)
        coco_id = coco_number(str(files[number]))
        for text in texts:
            name = f"{question_id}-{counts[question_id]}"
            entries.append(make_expression(name, text, corners, None, number, coco_id, where))
            counts[question_id] += 1
    check_distinct(entries, source)
    files_at = folder if local else Path(library.config.HF_CACHE_HOME).expanduser()
    return HubRows(rows, entries, files_at, anywhere)


def _load_local(library: Any, folder: Path, split: str) -> Any:
    """The split's table in a folder."""
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        if not saved:
            return library.load_dataset(str(folder), split=split)
        rows = library.load_from_disk(str(folder))
    except Exception as error:  # of whatever library reads the format
        raise _cannot_load(error, folder, split, "check the files") from error
    if not isinstance(rows, library.DatasetDict):
        return rows
    if split not in rows:
        raise UserError(f"{folder} has no split {split}; it has {', '.join(rows)}.")
    return rows[split]


def _load_remote(library: Any, hub_id: str, split: str) -> Any:
    """The split's table on the hub."""
    if hub_id.startswith(("/", ".", "~")) or hub_id.count("/") != 1:
        raise UserError(
            f"Expected dataset.annotations to be a folder with a saved data set or a hub id like "
            f"lmms-lab/RefCOCO; got {hub_id!r}, which is neither."
        )
    try:
        _reach(library, hub_id)
        return library.load_dataset(hub_id, split=split)
    except (OSError, ValueError, library.exceptions.DatasetsError) as error:
        advice = (
            f"fetch it where the hub can be reached (hf download --repo-type dataset {hub_id}) and "
            "point dataset.annotations at the folder, or set HF_HUB_OFFLINE=1 if an earlier run "
            "has fetched it"
        )
        raise _cannot_load(error, hub_id, split, advice) from error


def _cannot_load(error: Exception, source: Path | str, split: str, advice: str) -> UserError:
    reason = str(error).strip().split("\n")[0]
    return UserError(f"The split {split} of {source} could not be loaded ({reason}); {advice}.")


def _reach(library: Any, hub_id: str) -> None:
    """Look once whether the hub answers; the library itself would try for half a minute.

    Raises:
        ConnectionError: It does not answer.
    """
    if library.config.HF_HUB_OFFLINE:
        return
    hub = import_module("huggingface_hub")
    try:
        hub.HfApi(endpoint=library.config.HF_ENDPOINT).dataset_info(hub_id, timeout=5)
    except hub.errors.HfHubHTTPError:
        return  # it answers; the library reports what
    except Exception as error:  # of whatever library speaks to the hub
        raise ConnectionError(f"{library.config.HF_ENDPOINT} does not answer: {error}") from error
