"""Whether a method and a model fit, found out before anything runs."""

from __future__ import annotations

from ivcp.core.errors import MissingSignalError, UserError
from ivcp.core.family import ModelFamily
from ivcp.core.layer_kinds import Kinds, readable_layers
from ivcp.core.pruner import Pruner, Stage
from ivcp.core.tower import tower_block
from ivcp.core.view import LAYER_SIGNALS, TOWER_BLOCK_SIGNALS, Signal


def fit_pair(pruner: Pruner, family: ModelFamily, name: str) -> Pruner:
    """The pruner with the model's values instead of "auto"; no weights are read.

    Args:
        pruner: The method.
        family: The model's family.
        name: Name of the model, for messages.

    Raises:
        UserError: The model cannot serve the pruner.
    """
    kinds, provides = family.kinds(), family.signals()
    if isinstance(pruner, Pruner):
        pruner = pruner.fitted(family.model_types[0], len(kinds), provides, kinds)
    check_pair(pruner, provides, name, kinds)
    if (blocks := family.tower_depth()) is not None:
        for stage in pruner.stages():
            for layer in stage.tower_layers if stage.needs & TOWER_BLOCK_SIGNALS else ():
                tower_block(layer, blocks, pruner.name, name)
    return pruner


def check_pair(pruner: Pruner, provides: frozenset[Signal], model: str, kinds: Kinds) -> None:
    """Refuse a pruner that the model cannot serve, before anything runs.

    Args:
        pruner: The method, with its layers filled in.
        provides: Signals of the model.
        model: Name of the model, for the message.
        kinds: The kind of each decoder layer.

    Raises:
        MissingSignalError: The model lacks a signal.
        UserError: It is no pruner, a stage lies outside the model, two stages share a layer, or a
            stage reads a layer without keys and values.
    """
    if isinstance(pruner, type) or not isinstance(pruner, Pruner):
        got = f"the class {pruner.__name__}" if isinstance(pruner, type) else repr(pruner)
        raise UserError(
            f"pruner must be an instance of a Pruner, such as FastV(keep_ratio=0.5); got {got}."
        )
    name, before, stages, layers = pruner.name, -1, pruner.stages(), len(kinds)
    if not isinstance(stages, tuple | list):
        raise UserError(f"{name}.stages() must give a tuple of Stage objects; got {stages!r}.")
    for stage in stages:
        if not isinstance(stage, Stage):
            raise UserError(f"{name}.stages() must give Stage objects; got {stage!r}.")
        if missing := sorted(stage.needs - provides):
            raise MissingSignalError(
                f"{name} needs the signal {', '.join(missing)}, but {model} provides only "
                f"{', '.join(sorted(provides))}; use another pruner or model.",
                provides,
            )
        if stage.first_pass > layers:
            raise UserError(
                f"The first pass of {name} must have 1 .. {layers} of the {layers} decoder layers "
                f"of {model}; got {stage.first_pass}."
            )
        reads_before = stage.signals_from == "previous" and not stage.first_pass
        lowest = int(reads_before and bool(stage.needs & LAYER_SIGNALS))
        if not lowest <= stage.layer < layers:
            reason = f" ({name} looks at the layer before)" if lowest else ""
            raise UserError(
                f"layer must lie in {lowest} .. {layers - 1} for {model} with its {layers} decoder "
                f"layers{reason}; got {stage.layer}."
            )
        if stage.needs & LAYER_SIGNALS:
            _check_readable(stage, kinds, name, model)
        if stage.layer <= before:
            raise UserError(
                f"{name} has stages at the layers {[each.layer for each in stages]}; they must "
                "ascend, one stage a layer."
            )
        before = stage.layer


def _check_readable(stage: Stage, kinds: Kinds, pruner: str, model: str) -> None:
    """Refuse a stage that reads a linear layer.

    Raises:
        UserError: It does.
    """
    if stage.first_pass:  # its last layer is read
        index, allowed = stage.first_pass - 1, readable_layers([*kinds, "linear"], "previous")
        what, number = "first pass of", stage.first_pass
    else:
        index = stage.layer - (stage.signals_from == "previous")
        allowed = readable_layers(kinds, stage.signals_from)
        what, number = "layer", stage.layer
    if kinds[index] != "linear":
        return
    below = [layer for layer in allowed if layer < number][-1:]
    above = [layer for layer in allowed if layer > number][:1]
    raise UserError(
        f"{pruner} reads {', '.join(sorted(stage.needs & LAYER_SIGNALS))} of layer {index}, but "
        f"that layer of {model} has linear attention, without keys and values; the nearest layers "
        f"that can be set are {' and '.join(map(str, below + above)) or 'none'}; got {what} "
        f"{number}."
    )
