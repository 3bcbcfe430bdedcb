"""A method of a host's models wrapped in every class that has one of its own: models override without calling it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_DONE = "_clp_wrapped"


def wrap_overrides(base_model: Any, name: str, wrapped: Callable[[Any], Any]) -> None:
    """Let ``wrapped(original)`` stand for a method of every class whose models are made from now on.

    Where one of them calls its parent's, that is a wrapped one too.

    Args:
        base_model: the class that all models of the host inherit.
        name: the method's.
        wrapped: takes the function of a class and returns the one to stand in its place.
    """
    original = base_model.__init__

    @functools.wraps(original)
    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        order = type(self).__mro__
        for owner in order[: order.index(base_model) + 1]:  # mixins included, which inherit nothing of the host
            own = vars(owner).get(name)
            if callable(own) and not hasattr(own, _DONE):
                replacement = functools.wraps(own)(wrapped(own))
                setattr(replacement, _DONE, True)
                setattr(owner, name, replacement)
        original(self, *args, **kwargs)

    base_model.__init__ = initialise
