"""Who multiplies a loss by its ``loss_weight``, the loss or the model that calls it: a host's source tells."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator


@functools.cache
def host_multiplies(model: type[object]) -> bool:
    """Say whether a model's class, or one that it inherits, multiplies something by an attribute ``loss_weight``.

    Or by a name that such a weight went into. Yes for a class without source: newer hosts do.
    """
    trees = [tree for owner in model.__mro__ if owner is not object and (tree := _tree(owner)) is not None]
    return not trees or any(_multiplies(tree) for tree in trees)


def _tree(owner: type) -> ast.Module | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, TypeError, SyntaxError):
        return None


def _multiplies(tree: ast.Module) -> bool:
    weights = _names_of_weights(tree)
    products = (each for each in ast.walk(tree) if isinstance(getattr(each, "op", None), ast.Mult))
    return any(_is_weight(part, weights) for product in products for part in ast.walk(product))


def _names_of_weights(tree: ast.Module) -> set[str]:
    """Return the names that are given what has to do with a ``loss_weight``; of comparisons, that is only whether."""
    names: set[str] = set()
    for _ in range(2):  # an adjusted weight of a base weight
        for value, targets in _assignments(tree):
            if not isinstance(value, ast.Compare) and any(_is_weight(part, names) for part in ast.walk(value)):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _assignments(tree: ast.Module) -> Iterator[tuple[ast.expr, list[ast.expr]]]:
    for each in ast.walk(tree):
        if isinstance(each, ast.Assign):
            yield each.value, each.targets
        elif isinstance(each, ast.AnnAssign) and each.value is not None:
            yield each.value, [each.target]


def _is_weight(part: ast.AST, names: set[str]) -> bool:
    return getattr(part, "attr", None) == "loss_weight" or getattr(part, "id", None) in names
