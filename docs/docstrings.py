"""How docstrings look on the site: the paper and the differences of a method are paragraphs."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

LABEL = re.compile(r"^(Paper|Differs from the reference|Source): ", re.MULTILINE)


class Paragraphs(Extension):
    """Begins a paragraph, with a bold word, at each label that stands within one."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of an object that has just been read."""
        if obj.docstring:
            obj.docstring.value = LABEL.sub(r"\n**\1:** ", obj.docstring.value)
