"""Vision towers that encode squares of patches one by one: CLIP, SigLIP and InternVL's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ivcp.core.errors import UserError
from ivcp.core.tower import VisionTower


class TiledTower(VisionTower):
    """A tower that encodes an image as one tile, or as several that do not attend to each other.

    Args:
        vision: The library's vision model; its embeddings decide whether there is a [CLS] row.
        projector: Maps the features of a token's patches, side by side, to its embedding.
        patch: Height and width of a patch in pixels.
        fold: Patches along each side of a visual token.
    """

    norm: ClassVar[str] = "layer_norm1"
    attention: ClassVar[str] = "self_attn"

    def __init__(
        self, vision: nn.Module, projector: Any, patch: tuple[int, int], fold: int = 1
    ) -> None:
        embeddings: Any = vision.embeddings
        self.projector = projector
        self.has_cls = any(hasattr(embeddings, name) for name in ("class_embedding", "cls_token"))
        self.patch, self.fold = patch, fold

    def _tiles(self, call: Mapping[str, Any]) -> list[int]:
        """Number of tiles of each image of a call, in the order of the tower."""
        return [1] * len(call["pixel_values"])

    def _edges(self, call: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of patches of a tile."""
        height, width = call["pixel_values"].shape[-2:]
        return height // self.patch[0], width // self.patch[1]

    def _length(self, call: Mapping[str, Any]) -> int:
        """Rows of a tile in the tower."""
        rows, columns = self._edges(call)
        return rows * columns + self.has_cls

    def _tokens(self, call: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """For each image, (tiles, rows, columns, P) rows of each token's patches in the tower."""
        tiles = self._tiles(call)
        tile = folded(*self._edges(call), self.fold)  # (rows, columns, P), into a tile's patches
        starts = torch.arange(sum(tiles)) * self._length(call) + self.has_cls
        rows = starts[:, None, None, None] + tile
        return torch.split(rows.masked_fill(tile < 0, -1), tiles)

    def segments(self, block: int, call: Mapping[str, Any]) -> list[int]:
        return [self._length(call)] * sum(self._tiles(call))

    def patches(self, call: Mapping[str, Any]) -> list[Tensor]:
        return [tokens.flatten(0, 2) for tokens in self._tokens(call)]

    def cls_rows(self, call: Mapping[str, Any]) -> list[Tensor]:
        tiles = self._tiles(call)
        if not self.has_cls:
            return [torch.empty(0, dtype=torch.long) for _ in tiles]
        return list(torch.split(torch.arange(sum(tiles)) * self._length(call), tiles))

    def queries(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Any]
    ) -> Tensor:
        return self._projected(block, hidden[rows], "q")

    def keys(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Any]
    ) -> Tensor:
        return self._projected(block, hidden[rows], "k")

    def scale(self, block: nn.Module) -> float:
        return float(getattr(block, self.attention).scale)

    def project(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.projector(features)
        return embeddings

    def _projected(self, block: nn.Module, hidden: Tensor, name: str) -> Tensor:
        attention: Any = getattr(block, self.attention)
        states = getattr(attention, f"{name}_proj")(getattr(block, self.norm)(hidden))
        if (norm := getattr(attention, f"{name}_norm", None)) is not None:
            states = norm(states)  # InternVL: one norm over all heads
        by_head: Tensor = states.unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
        return by_head


class LlavaTower(TiledTower):
    """LLaVA-1.5: the states of one layer, without [CLS].

    Args:
        entry: `LlavaModel` or `LlavaNextModel`.

    Raises:
        UserError: The tower is of another type, or its features are not the square of patches of
            one layer.
    """

    def __init__(self, entry: nn.Module) -> None:
        vision: Any = entry.vision_tower
        config: Any = entry.config
        self.config = config
        if (kind := vision.config.model_type) not in ("clip_vision_model", "siglip_vision_model"):
            raise UserError(f"Only towers of CLIP and SigLIP can be read; this one is {kind!r}.")
        size = vision.config.patch_size
        super().__init__(vision, entry.multi_modal_projector, (size, size))
        strategy = config.vision_feature_select_strategy
        # "default" drops the first row in any case: a tower without [CLS] would lose a patch
        if (strategy == "default") != self.has_cls:
            raise UserError(
                f"vision_feature_select_strategy={strategy!r} does not fit a vision tower "
                f"{'with' if self.has_cls else 'without'} [CLS]; a square of tokens needs "
                f"{'default' if self.has_cls else 'full'!r}."
            )
        self.blocks = vision.encoder.layers
        self.feature_site = feature_layer(self.blocks, config.vision_feature_layer)

    def _tokens(self, call: Mapping[str, Any]) -> tuple[Tensor, ...]:
        for name in ("vision_feature_layer", "vision_feature_select_strategy"):
            if call.get(name) not in (None, configured := getattr(self.config, name)):
                raise UserError(
                    f"Set {name} in the configuration ({configured!r}), not in the call."
                )
        return super()._tokens(call)


class LlavaNextTower(LlavaTower):
    """LLaVA-NeXT: a thumbnail, then tiles joined to one grid whose padding is cut off."""

    def _tiles(self, call: Mapping[str, Any]) -> list[int]:
        """Tiles of each image as the library counts them; further rows only fill the batch."""
        from transformers.models.llava_next import modeling_llava_next as library

        pinpoints, size = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        return [
            library.image_size_to_num_patches(image, pinpoints, size)
            for image in torch.as_tensor(call["image_sizes"]).tolist()
        ]

    def patches(self, call: Mapping[str, Any]) -> list[Tensor]:
        sizes = torch.as_tensor(call["image_sizes"]).tolist()
        return [
            torch.cat([tokens[0].flatten(0, 1), self._joined(tokens[1:], size).flatten(0, 1)])
            for size, tokens in zip(sizes, self._tokens(call), strict=True)
        ]

    def _joined(self, tiles: Tensor, size: Sequence[int]) -> Tensor:
        """(rows, columns, P) of an image's tiles without padding; `size` is height and width."""
        from transformers.models.llava_next import modeling_llava_next as library

        pinpoints, edge = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        high, wide = library.get_anyres_image_grid_shape(size, pinpoints, edge)
        grid = mosaic(tiles, high, wide).permute(2, 0, 1)  # (P, rows, columns)
        unpadded: Tensor = library.unpad_image(grid, size).permute(1, 2, 0)
        return unpadded


class DeepSeekVLTower(TiledTower):
    """DeepSeek-VL: SigLIP's states behind its last norm.

    Args:
        entry: `DeepseekVLModel`.
    """

    def __init__(self, entry: nn.Module) -> None:
        vision: Any = entry.vision_model
        size = vision.config.patch_size
        super().__init__(vision, entry.aligner, (size, size))
        self.blocks = vision.encoder.layers
        self.feature_site = vision.post_layernorm, "output"


class DeepSeekVL2Tower(TiledTower):
    """DeepSeek-VL2: a global view, then local tiles joined to one grid; 2 x 2 patches a token.

    Args:
        entry: `DeepseekVL2Model`.
    """

    def __init__(self, entry: nn.Module) -> None:
        vision: Any = entry.vision_tower
        projector: Any = entry.projector
        size = vision.config.patch_size
        super().__init__(vision, projector, (size, size), projector.ratio)
        self.blocks = vision.encoder.layers
        self.feature_site = vision.post_layernorm, "output"

    def _tiles(self, call: Mapping[str, Any]) -> list[int]:
        return [1 + wide * high for wide, high in _crops(call)]

    def patches(self, call: Mapping[str, Any]) -> list[Tensor]:
        return [
            torch.cat([tokens[0].flatten(0, 1), mosaic(tokens[1:], high, wide).flatten(0, 1)])
            for (wide, high), tokens in zip(_crops(call), self._tokens(call), strict=True)
        ]

    def project(self, features: Tensor) -> Tensor:
        # the projector folds tiles; as a tile, a token's patches become one token
        size = self.fold**2
        tiles = features.reshape(len(features), size, features.shape[1] // size)
        embeddings: Tensor = self.projector(tiles)[:, 0]
        return embeddings


class Gemma3Tower(TiledTower):
    """Gemma 3: SigLIP's states behind its last norm; a token is the mean of its patches.

    Args:
        entry: `Gemma3Model`.
    """

    def __init__(self, entry: nn.Module) -> None:
        vision: Any = entry.vision_tower
        size = vision.config.patch_size
        projector: Any = entry.multi_modal_projector
        super().__init__(vision, projector, (size, size), projector.kernel_size)
        self.blocks = vision.encoder.layers
        self.feature_site = vision.post_layernorm, "output"

    def project(self, features: Tensor) -> Tensor:
        # the projector pools the patches of images, so tokens are laid out as images
        side, fold = self.projector.tokens_per_side, self.fold
        padded = pad(features, (0, 0, 0, -len(features) % side**2))
        grid = padded.view(-1, side, side, fold, fold, features.shape[1] // fold**2)
        embeddings: Tensor = self.projector(grid.transpose(2, 3).flatten(1, 4))
        return embeddings.flatten(0, 1)[: len(features)]


class InternVLTower(TiledTower):
    """InternVL: the states of one layer, without [CLS]; 2 x 2 patches a token.

    Args:
        entry: `InternVLModel`.

    Raises:
        UserError: The features come from several layers, or include [CLS].
    """

    per_tile: ClassVar[bool] = True
    norm: ClassVar[str] = "layernorm_before"
    attention: ClassVar[str] = "attention"

    def __init__(self, entry: nn.Module) -> None:
        vision: Any = entry.vision_tower
        config: Any = entry.config
        if (strategy := config.vision_feature_select_strategy) != "default":
            raise UserError(
                "Only InternVL models that leave [CLS] out can be read; this one has "
                f"vision_feature_select_strategy={strategy!r}."
            )
        # the library's pixel shuffle puts a token's patches side by side, row by row
        fold = int(1 / config.downsample_ratio)
        patch = tuple(vision.config.patch_size)
        super().__init__(vision, entry.multi_modal_projector, patch, fold)
        self.blocks = vision.encoder.layer
        if config.vision_feature_layer == -1:
            self.feature_site = vision.layernorm, "output"
        else:
            self.feature_site = feature_layer(self.blocks, config.vision_feature_layer)


def feature_layer(blocks: Any, layer: Any) -> tuple[nn.Module, Any]:
    """The module, and its side, with the hidden states of index `layer`; 0 enters the first block.

    Raises:
        UserError: The features come from several layers.
    """
    if not isinstance(layer, int):
        raise UserError(
            f"Only features of one layer of the vision tower can be read; this model has "
            f"vision_feature_layer={layer!r}."
        )
    index = layer % (len(blocks) + 1)
    return (blocks[-1], "output") if index == len(blocks) else (blocks[index], "input")


def folded(rows: int, columns: int, fold: int) -> Tensor:
    """(rows / fold, columns / fold, fold^2) indices of patches, rounded up; -1 beyond the edge."""
    square = torch.arange(rows * columns).view(rows, columns)
    square = pad(square, (0, -columns % fold, 0, -rows % fold), value=-1)
    down, across = (edge // fold for edge in square.shape)
    return square.view(down, fold, across, fold).transpose(1, 2).flatten(2)


def mosaic(tiles: Tensor, high: int, wide: int) -> Tensor:
    """(high * rows, wide * columns, P) of (high * wide, rows, columns, P) tiles, row by row."""
    grid = tiles.view(high, wide, *tiles.shape[1:]).transpose(1, 2)
    return grid.flatten(2, 3).flatten(0, 1)  # from (high, rows, wide, columns, P)


def _crops(call: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Tiles in width and height of each image."""
    return [(wide, high) for wide, high in torch.as_tensor(call["images_spatial_crop"]).tolist()]
