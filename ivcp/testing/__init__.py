"""Small random models of every family, for our tests and for those of others.

The models have the architecture of their family, so that a pruner meets the vision tower, the
prompt and the decoder that it meets at full size. They need no download and no GPU.

    @pytest.mark.parametrize("family", SMALL)
    def test_my_pruner_halves_the_visual_tokens(family):
        model, batch = model_of(family), batch_of(family)
        with pruned(model, MyPruner(keep_ratio=0.5)) as session:
            model.generate(**batch.inputs, max_new_tokens=2)
        ...

`ivcp/testing/families` holds one file a family. Another package names the `SmallFamily` of its own
family as an entry point of the group `ivcp.testing`.
"""

from ivcp.testing.batches import SMALL, Prompts, batch_of, model_of, prompts, single
from ivcp.testing.small import (
    END,
    EOS,
    IMAGE,
    PAD,
    START,
    VIDEO,
    ImagePrompt,
    SmallFamily,
    random_model,
)

__all__ = [
    "END", "EOS", "IMAGE", "PAD", "SMALL", "START", "VIDEO", "ImagePrompt", "Prompts",
    "SmallFamily", "batch_of", "model_of", "prompts", "random_model", "single",
]  # fmt: skip
