"""`attach(model, pruner)`: puts hooks on a model; closing the session removes them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager

from torch import nn

from ivcp.core.errors import UserError
from ivcp.core.family import ModelAdapter
from ivcp.core.layer_kinds import check_kinds
from ivcp.core.pairing import check_pair
from ivcp.core.pruner import Pruner
from ivcp.engine.checks import backend_of, check_compiled, discard_compiled
from ivcp.engine.context import SessionContext
from ivcp.engine.hooks import Hooks
from ivcp.engine.session import Session

_pruned: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_lock = threading.Lock()


def attach(model: nn.Module, adapter: ModelAdapter, pruner: Pruner) -> Session:
    """Prune every forward pass with visual tokens until the session is closed.

    Args:
        model: An unmodified Hugging Face model that `adapter` knows.
        adapter: How to look inside the model.
        pruner: The method.

    Raises:
        UserError: The model or its attention backend cannot serve the pruner.
    """
    decoder = adapter.decoder(model)
    kinds = adapter.layer_kinds(decoder.config)[: len(decoder.layers)]  # type: ignore[arg-type]
    model_type = str(getattr(model.config, "model_type", ""))
    provides = adapter.provides(model.config)
    if isinstance(pruner, Pruner):
        pruner = pruner.fitted(model_type, len(kinds), provides, kinds)
    check_pair(pruner, provides, type(model).__name__, kinds)
    check_compiled(model)
    check_kinds(decoder.config, kinds, adapter.supported_kinds)
    backend_of(decoder)
    context = SessionContext(
        adapter, pruner, decoder, kinds, adapter.position_axes(model),
        adapter.inverse_frequencies(model), adapter.text_encoder(model),
    )  # fmt: skip
    session = Session(adapter.makes_square)
    hooks = Hooks(model, context, session)
    with _lock:
        if decoder in _pruned:
            raise UserError(
                "This model is being pruned already: leave that block (or close that session) "
                "first; two methods together are a Compose."
            )
        _pruned.add(decoder)

    def close() -> None:
        hooks.detach()
        discard_compiled()
        _pruned.discard(decoder)  # last: another session may start only on a clean model

    session.on_close(close)
    discard_compiled()  # code that was compiled before would not run the new hooks
    try:
        hooks.attach()
    except BaseException:
        close()
        raise
    return session


@contextmanager
def open_session(model: nn.Module, adapter: ModelAdapter, pruner: Pruner) -> Iterator[Session]:
    """`attach` for a `with` block."""
    with closing(attach(model, adapter, pruner)) as session:
        yield session
