"""The processor's part: how many tokens of each image remain, and under which hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems
from vllm.multimodal.processing import PromptReplacement

from ivcp.core.errors import UserError
from ivcp.integrations.vllm.item import FIELD, Item, expanded, placed
from ivcp.integrations.vllm.settings import KEY, OF_TEXT, canonical, merged, pruner_of


class PruningProcessor:
    """Put before a family's processor as a base class.

    Settings come with a request as `mm_processor_kwargs={"ivcp": {...}}`, else with the engine as
    `hf_overrides={"ivcp": {...}}`. An image's prompt has as many placeholders as tokens remain.
    """

    info: Any
    flat: ClassVar[bool] = False  # as `Item` has it

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Find the request's pruner, and carry it through the family's steps as items."""
        try:
            items = self._items(inputs)
        except UserError as error:
            raise ValueError(str(error)) from error  # which the server answers with
        kwargs = {**inputs.hf_processor_mm_kwargs, KEY: items}
        inputs = replace(inputs, hf_processor_mm_kwargs=kwargs)
        return super().apply(inputs, timing_ctx)  # type: ignore[misc]

    def _items(self, inputs: Any) -> list[Item]:
        """Settings, size and place of each image of a prompt."""
        config, multimodal = self.info.get_hf_config(), self.info.ctx.get_mm_config()
        if KEY in (multimodal.mm_processor_kwargs or {}):
            raise UserError(f"--mm-processor-kwargs cannot hold {KEY}: use --hf-overrides.")
        settings = merged(getattr(config, KEY, None), inputs.hf_processor_mm_kwargs.get(KEY))
        words = canonical(settings)
        pruner = self._pruner(words)
        images = inputs.mm_data_items.get("image")
        if images is None:
            grids = []
        elif isinstance(images, ImageProcessorItems):
            grids = [self._grid(images, n, inputs) for n in range(images.get_count())]
        elif pruner is None:
            return [Item("{}", 0, 0, 0, 0, 0, self.flat, n) for n in range(images.get_count())]
        else:
            raise UserError("Embeddings of images cannot be pruned: send the images.")
        if pruner is not None and inputs.mm_data_items.get("video"):
            raise UserError('Videos are not pruned in vLLM: send the request with "ivcp": {}.')
        needs = frozenset().union(*(stage.needs for stage in pruner.stages())) if pruner else set()
        first_pass = pruner is not None and any(stage.first_pass for stage in pruner.stages())
        if first_pass and len(grids) > 1:
            raise UserError(f"two_pass reads one image a prompt; got {len(grids)}.")
        text: dict[str, Any] = {}
        if needs & OF_TEXT:
            ids = expanded(inputs.prompt, config.image_token_id, grids)
            text = {"prompt": tuple(ids), "grids": tuple(grids)}
        if pruner is None:
            return [
                Item("{}", *grid, grid[0] * grid[1], 0, 0, self.flat, n)
                for n, grid in enumerate(grids)
            ]
        starts = placed(inputs.prompt, config.image_token_id, grids, self.flat)
        return [
            Item(
                words, *grid, pruner.plan(grid[0] * grid[1])[-1], *start, self.flat, number, **text
            )
            for number, (grid, start) in enumerate(zip(grids, starts, strict=True))
        ]

    def _grid(self, images: ImageProcessorItems, number: int, inputs: Any) -> tuple[int, int]:
        """Rows and columns of the visual tokens that an image will have."""
        kwargs = _without(inputs.hf_processor_mm_kwargs)
        if images.get(number) is None:
            raise UserError("Images that are named by uuid alone cannot be pruned: send them.")
        size = images.get_image_size(number)
        vision = self.info.get_hf_config().vision_config
        resized, _ = self.info._get_vision_info(
            image_width=size.width,
            image_height=size.height,
            image_processor=self.info.get_image_processor(**kwargs),
            mm_kwargs=kwargs,
        )
        edge = vision.patch_size * vision.spatial_merge_size
        return resized.height // edge, resized.width // edge

    def _pruner(self, settings: str) -> Any:
        config = self.info.get_hf_config()
        depth = config.get_text_config().num_hidden_layers
        blocks = getattr(config.vision_config, "depth", None)
        return pruner_of(settings, config.model_type, depth, blocks)

    def _get_mm_hashes(self, inputs: Any) -> Any:
        """The family's hashes, each with what decides which tokens of the image remain."""
        items: Sequence[Item] = inputs.hf_processor_mm_kwargs[KEY]
        plain = replace(inputs, hf_processor_mm_kwargs=_without(inputs.hf_processor_mm_kwargs))
        hashes: dict[str, list[str]] = dict(super()._get_mm_hashes(plain))  # type: ignore[misc]
        algorithm = self.info.ctx.get_mm_config().mm_hasher_algorithm
        for number, item in enumerate(items):
            if item.pruned:
                identity = item.identity(self._pruner(item.settings).reads_start())
                hashes["image"][number] = MultiModalHasher.hash_kwargs(
                    algorithm, image=hashes["image"][number], ivcp=identity
                )
        return hashes

    def _get_cache_missing_processor_kwargs(self, inputs: Any, mm_is_cached: Any) -> Any:
        items = inputs.hf_processor_mm_kwargs[KEY]
        plain = replace(inputs, hf_processor_mm_kwargs=_without(inputs.hf_processor_mm_kwargs))
        kwargs = super()._get_cache_missing_processor_kwargs(plain, mm_is_cached)  # type: ignore[misc]
        cached = mm_is_cached.get("image", ())
        missing = [item for item, hit in zip(items, cached, strict=True) if not hit]
        return {**kwargs, KEY: missing}

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, Any]) -> Any:
        data = super()._apply_hf_processor_main(mm_items, _without(hf_kwargs))  # type: ignore[misc]
        if items := hf_kwargs.get(KEY):
            data[FIELD] = [item.tensor() for item in items]
        return data

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        plain = _without(hf_processor_mm_kwargs)
        fields = super()._get_mm_fields_config(hf_inputs, plain)  # type: ignore[misc]
        return {**fields, FIELD: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any
    ) -> Any:
        plain = _without(hf_processor_mm_kwargs)
        updates = super()._get_prompt_updates(mm_items, plain, out_mm_kwargs)  # type: ignore[misc]
        items = hf_processor_mm_kwargs.get(KEY, ())
        return [self._shortened(update, items) for update in updates]

    @staticmethod
    def _shortened(update: PromptReplacement, items: Sequence[Item]) -> PromptReplacement:
        """A replacement by as many placeholders as an image's tokens that remain."""
        if update.modality != "image":
            return update

        def shorter(number: int) -> Any:
            tokens, item = update.replacement(number), items[number]
            return tokens[: item.kept] if item.pruned else tokens

        return replace(update, replacement=shorter)


def _without(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments that the family's processor knows."""
    return {name: value for name, value in kwargs.items() if name != KEY}
