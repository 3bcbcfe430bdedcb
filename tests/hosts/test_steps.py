"""The iteration of steps that are called in ways of their own: told where it can be, and never a reason to fail."""

from typing import Any

import pytest

from clp_basicsr.clock import iteration_of
from clp_basicsr.hosts import neosr, steps, trainner


class Base:
    accum_iters = 2

    def __init__(self, opt: object) -> None:
        """Take BasicSR's argument."""


@pytest.mark.parametrize("arguments", [(3,), (3, "more"), (), ("third",), (None,)], ids=str)
@pytest.mark.parametrize(
    ("iteration", "told"),
    [(steps.of_basicsr, 3), (neosr._iteration, 2), (trainner._iteration, 3)],
)
def test_a_step_of_any_arguments(arguments: tuple[Any, ...], iteration: Any, told: int) -> None:
    base: Any = type("Base", (Base,), {})

    class Model(base):
        def optimize_parameters(self, *given: Any) -> Any:
            return given

    steps.attach(base, iteration)
    steps.attach(base, iteration)
    model = Model({})
    assert model.optimize_parameters(*arguments) == arguments
    assert iteration_of(model) == (told if arguments[:1] == (3,) else None)
