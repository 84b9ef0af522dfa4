"""Run every notebook and keep its outputs, with light images: `python notebooks/execute.py`.

Needs `pip install nbclient ipykernel ipywidgets` beside `ivcp`.
"""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

PLAIN = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
COLORS = 48


def light(data: dict[str, Any]) -> None:
    """Leave one PNG of few colours of an output's images."""
    if "image/png" in data:
        image = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        file = io.BytesIO()
        image.quantize(COLORS).save(file, format="PNG", optimize=True)
        data["image/png"] = base64.b64encode(file.getvalue()).decode()
        data.pop("image/jpeg", None)
        data.pop("image/webp", None)


def main() -> None:
    """Run the notebooks of this folder, each in an empty one."""
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
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
