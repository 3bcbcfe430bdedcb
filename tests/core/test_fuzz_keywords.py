"""Keywords of every kind, alone and together: the loss is built and finite, or the error says what is wrong."""

from __future__ import annotations

import datetime
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import attempt, check_finite, examples
from hypothesis import given
from hypothesis import strategies as st

from clp_basicsr import CLPLoss, compiling
from clp_basicsr.criteria import CRITERIA
from clp_basicsr.loss import KEYWORDS
from clp_basicsr.negatives import SOURCES
from clp_basicsr.presets import PRESETS

SR, GT, LR = (
    torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    for seed, shape in enumerate([(2, 3, 8, 9), (2, 3, 8, 9), (2, 3, 4, 3)])
)
SR.requires_grad_()

WORDS = sorted(
    {"relative", "auto", "mean", "sum", "nonzero", "l1", "l2", "cosine", "gt", "lr", "random", "none", "null", "~"}
    | {"float32", "bfloat16", "float16", "vgg", "dinov2", "random_convs", "relu1_2", "conv1", "conv2", "type"}
    | set(CRITERIA) | set(PRESETS) | set(SOURCES) | set(KEYWORDS)
)  # fmt: skip


def nested(depth: int) -> list[Any]:
    """Return a list in a list in a list, deeper than Python's own ``repr`` goes."""
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def circular() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equal")

    __hash__ = object.__hash__


ODD: tuple[object, ...] = (
    10**400, -(10**400), 10**5000, 1e300, -1e300, 1e-300, 5e-324, 1e38, 1e-40, Fraction(1, 3), Fraction(10**400),
    Decimal("0.1"), Decimal("nan"), 1j, np.float16(0.5), np.float32(0.5), np.float64(0.5), np.float32("nan"),
    np.int64(3), np.int64(-3), np.uint8(1), np.bool_(True), np.str_("lr"), np.array(0.5), np.array([1.0, 2.0]),
    np.array([]), np.array(None), torch.tensor(0.5), torch.tensor([1.0, 2.0]), torch.tensor(1, device="meta"),
    object(), Unprintable(), print, CLPLoss, int, Path("."), Path("a\0b"), Ellipsis, range(3), b"1", bytearray(b"1"),
    datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), frozenset({1}), {1, 2}, nested(100_000), circular(),
    list(range(100_000)), "x" * 100_000, "\0", "~nobody-of-this-name/x", "a/b/c", "/", "..", "", " ", "1e-4", "5e-3",
    "1_000", "nan", "inf", "-1", "0x10", "ñandú", "\ud800", "vgg\n", "None", "True", OrderedDict(type="blur"),
)  # fmt: skip


def shown(given: object) -> str:
    try:
        return repr(given)
    except Exception:
        return "-" * 1000


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 12),
    st.floats(),
    st.floats(0, 3),
    st.text(max_size=6),
    st.binary(max_size=3),
    st.sampled_from(WORDS),
    st.sampled_from([each for each in ODD if len(shown(each)) < 100]),
)


def misspelt(word: str, place: int) -> str:
    """Return ``word`` with two neighbours swapped."""
    place %= max(1, len(word) - 1)
    return word[:place] + word[place : place + 2][::-1] + word[place + 2 :]


NAMES = st.one_of(st.sampled_from(WORDS), st.builds(misspelt, st.sampled_from(WORDS), st.integers(0, 20)))
KEYS = st.one_of(NAMES, st.none(), st.booleans(), st.integers(), st.floats(), st.dates())
JUNK = st.recursive(
    SCALARS | NAMES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)

SETTINGS = ("type", "count", "kernel", "sigma", "seed", "scale", "noise", "every", "decay", "start", "of", "sigmas")
RANGES = st.one_of(
    st.tuples(st.floats(0, 4), st.floats(0, 4)).map(sorted),
    st.sampled_from([[3, 5], [1, 1], (3, 11), [5, 3], [0, 0], [3.0, 5.0], [1, 10**9 + 1], [0.5, 1.0], [0.5], []]),
    st.lists(SCALARS, max_size=3),
)
SOURCE = st.fixed_dictionaries(
    {"type": st.sampled_from([*SOURCES]) | JUNK},
    optional={setting: RANGES | st.integers(1, 3) | SCALARS for setting in SETTINGS[1:]},
)
NEGATIVES = st.one_of(st.sampled_from([*SOURCES]), SOURCE, st.lists(SOURCE | NAMES, max_size=3), JUNK)
LAYER_WEIGHTS = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["conv1", "conv2", "conv3"]), st.floats(0, 2) | SCALARS, max_size=3),
    JUNK,
)
FLAGS = (
    "swap",
    "soft",
    "capped",
    "align_corners",
    "invert_equal_pixels",
    "use_input_norm",
    "range_norm",
    "diagnostics",
    "checkpoint",
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.booleans() for name in FLAGS},
    "model": st.sampled_from(["random_convs", "vgg"]),
    "preset": st.none() | st.sampled_from([*PRESETS]),
    "weights": st.sampled_from([None, "random"]),
    "layer_weights": LAYER_WEIGHTS,
    "negatives": NEGATIVES,
    "criterion": st.sampled_from([*CRITERIA]),
    "margin": st.just("relative") | st.floats(0.01, 2),
    "reduction": st.sampled_from(["mean", "nonzero"]),
    "over_negatives": st.sampled_from(["mean", "sum"]),
    "distance": st.sampled_from(["l2", "l1", "cosine"]),
    "precision": st.sampled_from(["float32", "bfloat16", "float16", "auto"]),
    "compile": st.just(False),  # a graph for every case would take hours
    "chunk": st.none() | st.integers(1, 3),
    "start_iter": st.integers(0, 2),
    "warmup_iter": st.integers(0, 2),
}
ANY = {name: st.one_of(LIKELY.get(name, st.floats(0.01, 3)), JUNK) for name in KEYWORDS}


@pytest.fixture(autouse=True)
def quick_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")


def built_and_called(keywords: dict[str, Any]) -> CLPLoss | Exception:
    """Build a loss and call it twice; what is built gives finite values, or says why it cannot."""
    loss = attempt(lambda: CLPLoss(**keywords))
    if isinstance(loss, CLPLoss):
        for _ in range(2):
            value = attempt(lambda: loss(SR, GT, LR))
            if not isinstance(value, Exception):
                check_finite(value, SR)
    return loss


def small(keywords: dict[str, Any]) -> dict[str, Any]:
    """Add what makes the network a tiny one that is not downloaded, where the keywords leave it open."""
    named = "model" in keywords or keywords.get("preset") is not None
    chosen = keywords if named else {"model": "random_convs", **keywords}
    if chosen.get("weights") is None:
        chosen = {**chosen, "weights": "random"}
    if any(isinstance(chosen.get(name), str) for name in ("model", "preset")) and chosen.get("layer_weights") is None:
        of_vgg = chosen.get("model", "vgg") == "vgg"
        chosen = {**chosen, "layer_weights": {"relu1_2": 1.0} if of_vgg else {"conv1": 1.0, "conv2": 0.5}}
    return chosen


def is_number(given: object, *, or_zero: bool = False) -> bool:
    if isinstance(given, (bool, np.bool_)) or not isinstance(given, (int, float, Fraction, np.number)):
        return False
    try:
        exact = Fraction(given.item() if isinstance(given, np.number) else given)
    except (ValueError, OverflowError):  # NaN and infinity are no fractions
        return False
    return 1e-12 <= exact <= 1e6 or (or_zero and exact == 0)


def is_count(given: object) -> bool:
    return isinstance(given, (int, np.integer)) and not isinstance(given, bool) and given >= 0


def one_of(*allowed: object) -> Callable[[object], bool]:
    """Return whether something is among words and numbers; ``1 == True`` counts, as it does in Python."""
    return lambda given: isinstance(given, (str, int, float)) and given in allowed


def flag(given: object) -> bool:
    return isinstance(given, bool)


ALLOWED: dict[str, Callable[[object], bool]] = {
    "loss_weight": is_number,
    "auto_weight": lambda given: given is None or is_number(given),
    "start_iter": is_count,
    "warmup_iter": is_count,
    "criterion": one_of(*CRITERIA),
    "margin": lambda given: is_number(given) or one_of("relative")(given),
    "push_weight": lambda given: is_number(given, or_zero=True),
    "swap": lambda given: given is False,
    "soft": lambda given: given is False,
    "reduction": one_of("mean"),
    "floor": one_of(0.1),
    "over_negatives": one_of("mean"),
    "temperature": one_of(0.07),
    "capped": one_of(True),
    "distance": one_of("l1", "l2", "cosine"),
    "precision": one_of("float32", "bfloat16", "float16", "auto"),
    "input_scale": is_number,
    **dict.fromkeys(["align_corners", "invert_equal_pixels", "use_input_norm", "range_norm", "diagnostics"], flag),
    **dict.fromkeys(["compile", "checkpoint"], flag),
    "chunk": lambda given: given is None or (is_count(given) and given != 0),
    "no_such_keyword": lambda given: False,
}
"""What a keyword takes when the others are left as they are; for the other keywords it is not a simple rule."""


def one_keyword(keyword: str, value: object) -> None:
    """Build a loss with it; what is refused has to be what cannot be meant."""
    loss = built_and_called(small({keyword: value}))
    if keyword in ALLOWED:
        assert isinstance(loss, CLPLoss) == ALLOWED[keyword](value)


@pytest.mark.parametrize("keyword", [*KEYWORDS, "no_such_keyword"])
def test_odd_values(keyword: str) -> None:
    for value in ODD:
        for entry in (value, [value], {"type": value}, {"conv1": value}, ["lr", {"type": "blur", "sigma": value}]):
            one_keyword(keyword, entry)


@pytest.mark.parametrize("keyword", KEYWORDS)
@given(data=st.data())
@examples(40)
def test_one_keyword(keyword: str, data: st.DataObject) -> None:
    one_keyword(keyword, data.draw(ANY[keyword]))


@given(keywords=st.fixed_dictionaries({}, optional=LIKELY))
@examples(400)
def test_keywords_that_may_go_together(keywords: dict[str, Any]) -> None:
    built_and_called(small(keywords))
