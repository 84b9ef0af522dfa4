"""Every family with the library's own image processor, at the size of `ivcp.testing`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from expected import EXPECTED
from vocabulary import byte_tokenizer

from ivcp.models.processor import Processor
from ivcp.testing import SMALL

FAMILIES: dict[str, Any] = {name: SMALL[name].family for name in EXPECTED}


def setup(
    name: str,
    folder: Path,
    tokenizer: Any = None,
    published: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[Any, Processor]:
    """A family and its processor at the size of the tests' models, read from a folder.

    Args:
        name: Stem of the family.
        folder: An empty folder.
        tokenizer: None for one token a byte.
        published: Settings that the folder's file changes.
        fields: Fields of the family.
    """
    published = EXPECTED[name].preprocessor | (published or {})
    config = SMALL[name].config(layers=1)
    (folder / "preprocessor_config.json").write_text(json.dumps(published))
    family = FAMILIES[name](path=str(folder), **fields)
    images = family._images(config)
    return family, Processor(tokenizer or byte_tokenizer(name), images, config)
