"""The contract of a pruning method: where it acts, which signals it reads, what it keeps.

A method is a frozen record of hyperparameters. It names its stages; at each of them the engine
hands it a view of every image and applies its selection:

    pixels -> vision tower -> projector -> layer 0 -> ... -> layer k-1 | layer k -> ...
                 tower_*      embeddings                     previous  ^ next
                                                              select() decides here
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from torch import Tensor

from ivcp.core.depths import Auto, ivc_prune_layer
from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields
from ivcp.core.layer_kinds import Kinds, nearest_layers, readable_layers
from ivcp.core.selection import Selection, budget, top
from ivcp.core.view import LAYER_SIGNALS, Signal, View

if TYPE_CHECKING:
    from typing_extensions import Self

Size: TypeAlias = tuple[int, int]
"""Width and height of an image in pixels."""
Renumbering: TypeAlias = bool | Literal["ranks", "shuffled"]
"""New positions of kept tokens in the layers behind a stage; False keeps their own.

True numbers them and the text without gaps, all axes alike, as releases do; "ranks" closes the gaps
on each axis, so that rows and columns stay; with "shuffled" the kept tokens of an image take each
other's positions at random. The last two leave the positions of what is generated as they are.
"""
TokenCount: TypeAlias = Callable[[Sequence[Size]], float]
"""Visual tokens that a model's processor makes of a sample's images of these sizes."""


@dataclass(frozen=True)
class Stage:
    """A decoder layer before which visual tokens are pruned.

    Attributes:
        layer: Index of that decoder layer; 0 is before the language model.
        needs: Signals that the method reads there.
        prune_earlier_kv: Whether to prune the KV cache of the layers before it, too.
        signals_from: Decoder layer whose values, keys and attention are read: the "previous" one,
            which has run, or the "next" one, which is about to run.
        tower_layers: Layers of the vision tower whose attention and keys are read; 0 is the first,
            -1 the last, and a fraction between 0 and 1 a part of the tower's depth.
        first_pass: Number of decoder layers that run once on all tokens before the stage, without
            storing anything, so that the stage can read the last of them as the "previous" layer;
            0 for no first pass. Only before layer 0.

    Raises:
        UserError: A field has a wrong type, or there cannot be such a first pass.
    """

    layer: int
    needs: frozenset[Signal] = frozenset()
    prune_earlier_kv: bool = True
    signals_from: Literal["previous", "next"] = "previous"
    tower_layers: tuple[int | float, ...] = (-2,)
    first_pass: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.first_pass < 0 or (
            self.first_pass and (self.layer or self.signals_from != "previous")
        ):
            raise UserError(
                "first_pass must be a number of decoder layers that run before a stage at layer 0 "
                f'with signals from the "previous" layer, or 0; got {self!r}.'
            )


@dataclass(frozen=True, kw_only=True)
class Pruner(ABC):
    """Base of all methods: a frozen record of hyperparameters and one decision.

    Attributes:
        keep_ratio: Fraction of an image's visual tokens that the last stage leaves, in (0, 1].
    """

    keep_ratio: float = 0.5

    whole_images: ClassVar[bool] = False
    """Whether `select` works on complete images only, so that no other method may prune before."""
    vectorized: ClassVar[bool] = False
    """Whether `select` may run once for several prompts that are laid out alike, by
    `torch.func.vmap`: it reads positions, hidden states, values, keys and `last_attention` alone,
    and no decision in Python depends on them. A class with a `select` of its own says so anew."""
    before_processor: ClassVar[bool] = False
    """Whether the method changes the sizes of images before they are processed (`image_sizes`), so
    that it cannot act inside `pruned`, where images are processed already."""

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            UserError: A field is out of its range.
        """
        check_fields(self)
        if not 0 < self.keep_ratio <= 1:
            raise UserError(
                f"keep_ratio must be a number in (0, 1], the fraction of visual tokens to keep; "
                f"got {self.keep_ratio!r}."
            )

    @property
    def name(self) -> str:
        """Name of the method, for messages."""
        return type(self).__name__

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """Where tokens are pruned, in ascending order of layers; empty for no pruning."""

    def image_sizes(self, sizes: Sequence[Size], count: TokenCount) -> list[Size]:
        """Sizes to which a sample's images are resized, if the method is `before_processor`.

        Args:
            sizes: Of the original images, in order.
            count: Counts the visual tokens of images of other sizes.

        Raises:
            UserError: No size gives what the method wants.
        """
        return list(sizes)

    @abstractmethod
    def select(self, view: View, stage: int) -> Selection:
        """Which tokens of one image to keep at `stages()[stage]`."""

    def select_sample(self, views: Sequence[View], stage: int) -> list[Selection]:
        """One selection for each image of a sample, in order.

        A method with one budget for all images or frames overrides this instead of `select`.
        """
        return [self.select(view, stage) for view in views]

    def renumbers(self) -> Renumbering:
        """Which new positions kept tokens get instead of their original ones."""
        return False

    def first_pass(self) -> int:
        """Number of decoder layers that run once more, before the first stage, to choose tokens."""
        return sum(stage.first_pass for stage in self.stages())

    def prunes(self) -> bool:
        """Whether anything is pruned anywhere; if not, a run is a baseline."""
        return self.before_processor or bool(self.stages())

    def fills_ratio(self) -> bool:
        """Whether exactly `keep_ratio` of the tokens are kept, whatever ratio is set."""
        return True

    def takes_whole_images(self) -> bool:
        """`whole_images` of the method, or of the method that it wraps."""
        return self.whole_images

    def decides_by_image(self) -> bool:
        """Whether `select` decides for each image alone; only then can another method wrap it."""
        return type(self).select_sample is Pruner.select_sample

    def reads_start(self) -> bool:
        """Whether the same image is pruned differently where it stands elsewhere in the prompt.

        Caches that know an image by its content alone must then tell such images apart.
        """
        return any("positions" in stage.needs for stage in self.stages())

    def runs_vectorized(self) -> bool:
        """`vectorized` of the class that decides, not of one whose decision is overridden."""
        for kind in type(self).__mro__:
            if "vectorized" in vars(kind):
                return bool(vars(kind)["vectorized"])
            if {"select", "select_sample", "score"} & vars(kind).keys():
                return False
        return False

    def plan(self, tokens: int) -> tuple[int, ...]:
        """How many of an image's visual tokens each stage leaves, merged ones included.

        A method with several stages overrides this, so that budgets can count its layers.

        Args:
            tokens: Visual tokens of the image.

        Raises:
            UserError: The numbers are not known before the image is seen.
        """
        stages = self.stages()
        if len(stages) > 1 or not self.fills_ratio():
            raise UserError(
                f"{self.name} does not tell before a run how many tokens it leaves at "
                "its stages, so its budget cannot be solved for."
            )
        return (budget(self.keep_ratio, tokens),) * len(stages)

    def fitted(
        self,
        model_type: str,
        layers: int,
        provides: frozenset[Signal] = frozenset(),
        kinds: Kinds = (),
    ) -> Self:
        """The method with the model's values instead of "auto".

        Args:
            model_type: `model.config.model_type`.
            layers: Number of decoder layers.
            provides: Signals of the model.
            kinds: The kind of each decoder layer; none if all have keys and values.
        """
        return self

    def target(self, view: View) -> int:
        """Number of the image's tokens that the last stage leaves."""
        return budget(self.keep_ratio, view.image.length)


@dataclass(frozen=True, kw_only=True)
class DecoderPruner(Pruner):
    """Base of methods that prune before decoder layers: `LayerPruner` and `StagedPruner`."""

    needs: ClassVar[frozenset[Signal]] = frozenset()
    signals_from: ClassVar[Literal["previous", "next"]] = "previous"

    def allowed(self, layers: Sequence[int], kinds: Kinds) -> tuple[int, ...]:
        """The layers, moved to the nearest ones before which the method's signals can be read."""
        if not kinds or not self.needs & LAYER_SIGNALS:
            return tuple(layers)
        return nearest_layers(layers, readable_layers(kinds, self.signals_from))

    def stages_before(self, layers: Sequence[int] | Auto, prune_kv: bool) -> tuple[Stage, ...]:
        """A stage with the method's needs before each of the layers.

        Raises:
            UserError: The layers are still "auto".
        """
        if isinstance(layers, str):
            raise UserError(
                f"The layer of {type(self).__name__} is still open: call "
                "pruner.fitted(model_type, layers) first, or give a number."
            )
        return tuple(Stage(layer, self.needs, prune_kv, self.signals_from) for layer in layers)


@dataclass(frozen=True, kw_only=True)
class LayerPruner(DecoderPruner):
    """Base of methods that prune once, before one decoder layer.

    Attributes:
        layer: Decoder layer before which to prune, 0 .. L-1 (1 .. L-1 for methods that read the
            layer before); "auto" takes the published layer of the model, else half its depth.
        prune_earlier_kv: Whether to prune the KV cache of the layers before it, too.
        renumber: New positions of kept tokens, as in `Renumbering`; False keeps their own.
    """

    layer: int | Auto = "auto"
    prune_earlier_kv: bool = True
    renumber: Renumbering = False

    def stages(self) -> tuple[Stage, ...]:
        layers: Sequence[int] | Auto = "auto" if self.layer == "auto" else (self.layer,)
        return self.stages_before(layers, self.prune_earlier_kv)

    def renumbers(self) -> Renumbering:
        return self.renumber

    def fitted(
        self,
        model_type: str,
        layers: int,
        provides: frozenset[Signal] = frozenset(),
        kinds: Kinds = (),
    ) -> Self:
        if self.layer != "auto":
            return self
        (layer,) = self.allowed((self.auto_layer(model_type, layers),), kinds)
        return dataclasses.replace(self, layer=layer)

    def auto_layer(self, model_type: str, layers: int) -> int:
        """The layer that "auto" stands for."""
        return ivc_prune_layer(model_type, layers)


@dataclass(frozen=True, kw_only=True)
class ScorePruner(LayerPruner):
    """Base of methods that rank tokens and keep the best `keep_ratio` of an image's tokens."""

    @abstractmethod
    def score(self, view: View) -> Tensor:
        """(V,) scores; the largest are kept, ties go to the lower index."""

    def select(self, view: View, stage: int) -> Selection:
        return Selection(top(self.score(view), self.target(view)).sort().values)


@dataclass(frozen=True, kw_only=True)
class StagedPruner(DecoderPruner):
    """Base of methods that prune before several decoder layers, down to `keep_ratio` at the last.

    Attributes:
        layers: Decoder layers before which to prune, ascending; "auto" takes those of
            `auto_layers`.
        prune_earlier_kv: Whether to prune the KV cache of earlier layers, too.
        renumber: New positions of kept tokens, as in `Renumbering`; False keeps their own.
    """

    layers: tuple[int, ...] | Auto = "auto"
    prune_earlier_kv: bool = False
    renumber: Renumbering = False

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = self.layers
        if layers != "auto" and (not layers or list(layers) != sorted(set(layers))):
            raise UserError(
                f"layers must be ascending, each once, and not empty; got {list(layers)}."
            )

    def stages(self) -> tuple[Stage, ...]:
        return self.stages_before(self.layers, self.prune_earlier_kv)

    def renumbers(self) -> Renumbering:
        return self.renumber

    def fitted(
        self,
        model_type: str,
        layers: int,
        provides: frozenset[Signal] = frozenset(),
        kinds: Kinds = (),
    ) -> Self:
        if self.layers != "auto":
            return self
        return dataclasses.replace(self, layers=self.allowed(self.auto_layers(layers), kinds))

    @abstractmethod
    def auto_layers(self, layers: int) -> tuple[int, ...]:
        """The layers that "auto" stands for in a model with `layers` decoder layers."""

    def check_length(self, name: str, values: Sequence[float]) -> None:
        """Check that a setting names one number for each layer.

        Raises:
            UserError: It does not.
        """
        if self.layers != "auto" and len(values) != len(self.layers):
            raise UserError(
                f"{name} must name one number for each of the {len(self.layers)} layers; got "
                f"{list(values)}."
            )

    def plan(self, tokens: int) -> tuple[int, ...]:
        """Stages shrink geometrically to the ratio."""
        if not self.fills_ratio():
            return super().plan(tokens)
        count, target = len(self.layers), budget(self.keep_ratio, tokens)
        shares = (float(target / tokens) ** (stage / count) for stage in range(1, count))
        return (*(round(tokens * share) for share in shares), target)

    def stage_target(self, view: View, stage: int) -> int:
        """Number of the image's tokens after a stage."""
        return self.plan(view.image.length)[stage]


@dataclass(frozen=True, kw_only=True)
class TowerPruner(Pruner):
    """Base of methods that prune before the language model, by signals of the vision tower.

    Attributes:
        renumber: New positions of kept tokens, as in `Renumbering`; False keeps their own.
    """

    renumber: Renumbering = False

    needs: ClassVar[frozenset[Signal]] = frozenset()

    @abstractmethod
    def tower_layers(self) -> tuple[int | float, ...]:
        """Layers of the vision tower that are read, as in `Stage`."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(0, self.needs, tower_layers=self.tower_layers()),)

    def renumbers(self) -> Renumbering:
        return self.renumber


@dataclass(frozen=True, kw_only=True)
class TowerLayerPruner(TowerPruner):
    """Base of those that read one layer of the vision tower.

    Attributes:
        tower_layer: Layer of the vision tower that is read; negative numbers count from its end.
    """

    tower_layer: int = -2

    def tower_layers(self) -> tuple[int | float, ...]:
        return (self.tower_layer,)
