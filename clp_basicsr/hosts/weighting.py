"""Who multiplies a loss by its ``loss_weight``, the loss or the model that calls it: a host's source tells."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def host_multiplies(model: type, step: Callable[..., Any]) -> bool:
    """Say whether the class of a model's ``step``, a method, multiplies something by an attribute ``loss_weight``."""
    wanted = inspect.unwrap(step.__func__ if inspect.ismethod(step) else step)
    owners = (each for each in model.__mro__ if inspect.unwrap(vars(each).get(step.__name__, int)) is wanted)
    return _multiplies(next(owners, model))


@functools.cache
def _multiplies(owner: type) -> bool:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, TypeError, SyntaxError):  # it came without, and newer versions multiply
        return True
    products = (each for each in ast.walk(tree) if isinstance(getattr(each, "op", None), ast.Mult))
    return any(getattr(part, "attr", "") == "loss_weight" for product in products for part in ast.walk(product))
