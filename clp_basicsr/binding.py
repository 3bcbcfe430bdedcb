"""Where the LR batch comes from when a call brings none: a block around it, or the model it is bound to."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self


class Host(NamedTuple):
    """What a host knows of the losses that its models hold."""

    holder: Callable[[BoundModule], Any | None]
    """Returns the model that holds a loss, or None."""
    name_among_twins: Callable[[BoundModule], str]
    """Returns the model's name for a loss, where it holds several of the same settings; else ``""``."""


_host: Host | None = None


def ask(host: Host) -> None:
    """Ask ``host`` about losses that are bound to no model."""
    global _host
    _host = host


class BoundModule(nn.Module):
    """A loss that frameworks call as ``loss(sr, target)``, without the LR batch that it needs."""

    def __init__(self) -> None:
        """Start bound to nothing."""
        super().__init__()
        self._owner: weakref.ref[Any] | None = None
        self._lr: Tensor | None = None

    @contextmanager
    def negatives(self, lr: Tensor) -> Iterator[Self]:
        """Use ``lr`` in every call inside the ``with`` block that passes none.

        For training loops that call all their losses as ``loss(sr, target)``.

        Args:
            lr: low-quality images ``(N, 3, h, w)`` or clips ``(N, T, 3, h, w)``, values in [0, 1].

        Example:
            >>> with loss.negatives(batch["lq"]):
            ...     total = sum(criterion(sr, target) for criterion in criteria)
        """
        outer, self._lr = self._lr, lr
        try:
            yield self
        finally:
            self._lr = outer

    def bind(self, model: Any) -> Self:
        """Read the LR batch from ``model.lq`` whenever ``lr`` is not given; return the loss itself.

        Only a weak reference is kept; it is neither copied nor pickled.

        Raises:
            TypeError: if ``model`` is of a type that cannot be referenced weakly.
        """
        try:
            self._owner = weakref.ref(model)
        except TypeError as error:
            raise TypeError(
                f"Argument `model` of bind must be an object of an ordinary class, such as a BasicSR model, but got a "
                f"{type(model).__name__}, which cannot be referenced weakly. Pass its LR batch instead: "
                "loss(sr, target, lr)."
            ) from error
        return self

    def bound_lr(self) -> Tensor:
        """Return the batch of the `negatives` block around this call, or else ``lq`` of the bound model.

        Raises:
            ValueError: if there is neither, or the model has no ``lq`` now.
        """
        if self._lr is not None:
            return self._lr
        model = self.bound_model()
        if model is None:
            raise ValueError(
                "CLPLoss needs the LR batch as its negative, but got none and is bound to no model. "
                "Pass it, loss(sr, target, lr), or bind the model that keeps it in `lq` once: loss.bind(model). Where "
                "others call the loss: with loss.negatives(lr): ..."
            )
        lr: Tensor | None = getattr(model, "lq", None)
        if lr is None:
            raise ValueError(
                f"CLPLoss is bound to a {type(model).__name__}, which must hold the LR batch in `lq`, but has none "
                "now. Call its feed_data first, or pass the batch: loss(sr, target, lr)."
            )
        return lr

    def bound_model(self) -> Any | None:
        """Return the model this loss is bound to, or else the model of a host that holds it; None where there is none.

        Raises:
            ValueError: if it is bound to none and held by more than one.
        """
        bound = self._owner() if self._owner is not None else None
        host = self._host()
        return host.holder(self) if bound is None and host is not None else bound

    def name_among_twins(self) -> str:
        """Return the bound model's name for this loss, where it holds several of the same settings; else ``""``."""
        host = self._host()
        return "" if host is None else host.name_among_twins(self)

    def _host(self) -> Host | None:
        return _host if self._may_ask() else None

    def _may_ask(self) -> bool:
        """Not while torch.compile traces: the search would break the graph, and ``fullgraph=True`` forbids that."""
        return not torch.compiler.is_compiling()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process and this step."""
        return {**self.__dict__, "_owner": None, "_lr": None}
