"""Does the model know the count, or the letter? `python -m recipes.tiny.probe llava CHECKPOINT`.

Reads the count head and the answered letter on 256 count questions about scenes that were not
trained on.
"""

from __future__ import annotations

import sys

import torch
from hydra import compose, initialize

from recipes.tiny.data import NO_INPUTS, PackedScenes, collate
from recipes.tiny.train import TinyTraining

UNSEEN = 5_000_000  # scenes of the training stream far behind those of any run


def main() -> None:
    """Print both accuracies."""
    with initialize(config_path="conf", version_base="1.3"):
        module = TinyTraining(compose("train", [f"instrument={sys.argv[1]}"]))
    state = torch.load(sys.argv[2], map_location="cpu", weights_only=False)["state_dict"]
    module.load_state_dict(state, strict=False)
    module.eval()
    scenes = PackedScenes(
        module.instrument, module.model.config, start=UNSEEN, size=128, referring=0, counting=2
    )
    counted = answered = questions = 0
    for start in range(0, len(scenes), 16):
        rows = [scenes[index] for index in range(start, start + 16)]
        batch = collate(rows, module.tokenizer.pad_token_id)
        inputs = {name: value for name, value in batch.items() if name not in NO_INPUTS}
        with torch.no_grad():
            out = module.model.model(**inputs, output_hidden_states=True, use_cache=False)
            for question in (1, 2):  # the first one, 0, is a yes/no question
                last = batch["last"][:, question]
                row = torch.arange(len(last))
                states = out.hidden_states[module.heads.box_layer][row, last]
                counted += (
                    (module.heads.count(states).argmax(-1) == batch["counts"][:, question])
                    .sum()
                    .item()
                )
                letter = module.model.lm_head(out.last_hidden_state[row, last]).argmax(-1)
                answered += (letter == batch["labels"][row, last]).sum().item()
                questions += len(last)
    print(
        f"count head {counted / questions:.3f}, letter {answered / questions:.3f}, "
        f"{questions} questions"
    )


if __name__ == "__main__":
    main()
