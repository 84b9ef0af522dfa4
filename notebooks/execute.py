"""Run notebooks and keep their outputs, with light images: `python notebooks/execute.py [FILE...]`.

Needs `pip install nbclient ipykernel ipywidgets` beside `ivcp`.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

PLAIN = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
QUALITY = 85  # of a JPEG


def light(data: dict[str, Any]) -> None:
    """Leave the smaller one of a PNG and a JPEG of an output's image."""
    if "image/png" in data:
        image = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        files = {"image/png": io.BytesIO(), "image/jpeg": io.BytesIO()}
        image.save(files["image/png"], format="PNG", optimize=True)
        image.save(files["image/jpeg"], format="JPEG", quality=QUALITY, subsampling=0)
        kind = min(files, key=lambda kind: len(files[kind].getvalue()))
        for other in files:
            data.pop(other, None)
        data[kind] = base64.b64encode(files[kind].getvalue()).decode()


def main() -> None:
    """Run the notebooks that are named, or all of this folder, each in an empty folder."""
    named = [Path(name) for name in sys.argv[1:]]
    for path in named or sorted(Path(__file__).parent.glob("*.ipynb")):
        notebook: Any = nbformat.read(path, 4)
        with tempfile.TemporaryDirectory() as folder:
            resources = {"metadata": {"path": folder}}
            NotebookClient(notebook, timeout=900, resources=resources).execute()
        notebook.metadata = PLAIN
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", []):
                light(output.get("data", {}))
        nbformat.write(notebook, path)
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
