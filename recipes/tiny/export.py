"""Put a trained model into the package: `python -m recipes.tiny.export llava RUN_FOLDER`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from recipes.tiny.llava import TinyLlava
from recipes.tiny.qwen import TinyQwen


def main() -> None:
    """Copy the Hugging Face folder of a run over the packaged one; the model card stays."""
    instrument = {"qwen": TinyQwen, "llava": TinyLlava}[sys.argv[1]]
    target = instrument.family.packaged
    target.mkdir(exist_ok=True)
    for path in sorted((Path(sys.argv[2]) / "model").iterdir()):
        shutil.copy(path, target / path.name)
        print(f"{path.stat().st_size:>10} {path.name}")


if __name__ == "__main__":
    main()
