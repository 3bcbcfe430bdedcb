"""Every keyword that cannot be meant: what it says, what was given, what is allowed, the nearest name."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clp_basicsr import CLPLoss, build_extractor
from clp_basicsr.loss import KEYWORDS

DEFAULTS = {
    "model": "dinov2",
    "preset": None,
    "weights": None,
    "loss_weight": 1.0,
    "auto_weight": None,
    "start_iter": 0,
    "warmup_iter": 0,
    "layer_weights": None,
    "criterion": "triplet",
    "margin": "relative",
    "push_weight": 1.0,
    "swap": False,
    "soft": False,
    "reduction": "mean",
    "floor": 0.1,
    "over_negatives": "mean",
    "temperature": 0.07,
    "capped": True,
    "distance": "l2",
    "negatives": "lr",
    "align_corners": False,
    "invert_equal_pixels": False,
    "use_input_norm": True,
    "range_norm": False,
    "input_scale": 1.0,
    "precision": "float32",
    "compile": False,
    "checkpoint": False,
    "chunk": None,
    "diagnostics": True,
}
VGG_HINT = {"relu1_3": "relu1_", "relu5": "relu5_", "Conv1_1": "conv1_1", "relu_1_2": "relu1_2"}


def refused(kind: type[Exception], *said: str, **keywords: Any) -> None:
    with pytest.raises(kind, match=r".") as caught:
        CLPLoss(**{"model": "efficientnet_lite0", **keywords})
    for part in said:
        assert part in str(caught.value)


def test_keywords_and_their_defaults() -> None:
    signature = inspect.signature(CLPLoss.__init__).parameters
    assert {name: signature[name].default for name in DEFAULTS} == DEFAULTS
    assert tuple(DEFAULTS) == KEYWORDS


def test_all_but_the_model_are_keywords_only() -> None:
    with pytest.raises(TypeError):
        CLPLoss("efficientnet_lite0", None)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "near"),
    [("vg19", "vgg19"), ("VGG19", None), ("dino2", "dinov2"), ("efficientnet_lite", "efficientnet_lite0"),
     ("dinov2_smal", "dinov2_small"), ("resnet", None)],
)  # fmt: skip
def test_unknown_model(given: str, near: str | None) -> None:
    hint = [f"Did you mean '{near}'?"] if near else []
    refused(ValueError, "`model`", repr(given), "'vgg19'", "'dinov2'", "'efficientnet_lite0'", *hint, model=given)


@pytest.mark.parametrize("given", [None, 3, ["vgg"], True])
def test_model_of_another_type(given: object) -> None:
    refused(ValueError, "`model`", repr(given), model=given)


@pytest.mark.parametrize(("given", "near"), VGG_HINT.items())
def test_unknown_layer_of_vgg(given: str, near: str) -> None:
    refused(
        ValueError, "`vgg19`", repr(given), "'relu5_4'", f"Did you mean '{near}", model="vgg", layer_weights={given: 1}
    )


def test_unknown_layer_of_other_networks(dino_folder: object) -> None:
    refused(ValueError, "'block17'", "'block1' … 'block16'", "Did you mean 'block", layer_weights={"block17": 1})
    refused(ValueError, "'block10'", "'block9'", "Did you mean", model=str(dino_folder), layer_weights={"block10": 1})
    refused(ValueError, "'stage1'", "'block1'", model=str(dino_folder), layer_weights={"stage1": 1})


@pytest.mark.parametrize(
    ("keyword", "given", "near"),
    [
        ("criterion", "triplett", "triplet"),
        ("criterion", None, None),
        ("distance", "L2", "l2"),
        ("distance", "cosin", "cosine"),
        ("distance", 2, None),
        ("margin", "relativ", "relative"),
        ("margin", "auto", None),
        ("precision", "float", "float"),
        ("precision", "bfloat", "bfloat16"),
        ("precision", None, None),
        ("precision", "double", None),
    ],
)
def test_unknown_word(keyword: str, given: object, near: str | None) -> None:
    allowed = {"criterion": "triplet", "distance": "cosine", "margin": "relative", "precision": "bfloat16"}[keyword]
    hint = [f"Did you mean '{near}"] if near and near != "l2" else []
    refused(ValueError, f"`{keyword}`", repr(given), repr(allowed), *hint, **{keyword: given})


def test_a_margin_word_may_also_be_a_number() -> None:
    refused(ValueError, "a number > 0", margin="auto")


@pytest.mark.parametrize(
    ("keyword", "said"),
    [
        ("lossweight", "Did you mean 'loss_weight'?"),
        ("layers_weights", "Did you mean 'layer_weights'?"),
        ("Margin", "Did you mean 'margin'?"),
        ("perceptual_weight", "`loss_weight`"),
        ("style_weight", "no style"),
        ("vgg_type", "`model`"),
        ("zzz", "'push_weight'"),
    ],
)
def test_misspelt_keyword(keyword: str, said: str) -> None:
    refused(TypeError, f"`{keyword}`", "'loss_weight'", said, **{keyword: 1.0})


@pytest.mark.parametrize("given", [0, -1, 0.0, -0.5, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("keyword", ["loss_weight", "margin"])
def test_number_out_of_range(keyword: str, given: float) -> None:
    refused(ValueError, f"`{keyword}`", "finite number > 0", repr(given), **{keyword: given})


@pytest.mark.parametrize("given", [1e-13, 1e-320, 1.1e6, 3e38, 1e300, 10**400])
@pytest.mark.parametrize("keyword", ["loss_weight", "margin", "push_weight", "input_scale", "auto_weight"])
def test_number_that_float32_would_make_0_or_infinite(keyword: str, given: float) -> None:
    refused(ValueError, f"`{keyword}`", "but got", repr(given)[:150], **{keyword: given})


def test_numbers_of_numpy_are_numbers() -> None:
    loss = CLPLoss("random_convs", loss_weight=np.float32(0.5), start_iter=np.int64(3), push_weight=np.float16(0))  # type: ignore[arg-type]
    assert (loss.loss_weight, loss.schedule.start_iter) == (0.5, 3)


@pytest.mark.parametrize("given", [-1, float("nan"), float("inf")])
def test_push_weight_out_of_range(given: float) -> None:
    refused(ValueError, "`push_weight`", "finite number >= 0", repr(given), push_weight=given)


@pytest.mark.parametrize("keyword", ["loss_weight", "push_weight"])
def test_text_instead_of_a_number(keyword: str) -> None:
    refused(TypeError, f"`{keyword}`", "'1e-4'", "str", "!!float 1e-4", **{keyword: "1e-4"})
    wordy: dict[str, Any] = {keyword: "much"}
    with pytest.raises(TypeError) as caught:
        CLPLoss("efficientnet_lite0", **wordy)
    assert "!!float" not in str(caught.value)


@pytest.mark.parametrize("given", [True, False, None, [1.0], {"a": 1}, 1j])
@pytest.mark.parametrize("keyword", ["loss_weight", "push_weight", "margin"])
def test_other_types_instead_of_a_number(keyword: str, given: object) -> None:
    refused(TypeError, f"`{keyword}`", repr(given), "must be a number", **{keyword: given})


@pytest.mark.parametrize("given", [0, 1, "true", None])
@pytest.mark.parametrize("keyword", ["align_corners", "invert_equal_pixels", "use_input_norm", "range_norm"])
def test_flags_are_true_or_false(keyword: str, given: object) -> None:
    refused(TypeError, f"`{keyword}`", "true or false", repr(given), **{keyword: given})


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "keyword", ["model", "loss_weight", "floor", "swap", "start_iter", "negatives", "layer_weights"]
)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Unprintable(), "a Unprintable that cannot be printed"),
        (nested(100_000), "a list that cannot be printed"),
        ([10**5000], "a list that cannot be printed"),
        (["x" * 10_000], "['" + "x" * 198 + "…"),
    ],
    ids=["no repr", "deep", "digits", "long"],
)
def test_what_cannot_be_printed_is_still_answered(keyword: str, given: Any, said: str) -> None:
    where = {"negatives": given[0] if isinstance(given, list) else given}
    with pytest.raises((TypeError, ValueError), match=r"must .* but got") as caught:
        CLPLoss(**{"model": "random_convs", keyword: where.get(keyword, given)})
    assert len(str(caught.value)) < 2000
    assert keyword == "negatives" or said in str(caught.value)


@pytest.mark.parametrize("given", [np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), torch.tensor(0.1, device="meta")])
@pytest.mark.parametrize("keyword", ["loss_weight", "floor", "temperature", "swap"])
def test_arrays_instead_of_a_number(keyword: str, given: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"`{keyword}` must") as caught:
        CLPLoss("random_convs", **{keyword: given})
    assert "!!float" not in str(caught.value)


@pytest.mark.parametrize("given", ["x" * 5000, "~nobody-of-this-name/x", "a\0b", "x/" * 3000])
def test_names_that_no_file_can_have(given: str) -> None:
    refused(ValueError, "`model`", "checkpoint folder", model=given)
    for model in ("vgg", "efficientnet_lite0", "dinov2"):
        refused(FileNotFoundError, "`weights`", "must", "but there is", model=model, weights=given)


@pytest.mark.parametrize("given", [{}, {"block1": 0}, {"block1": 0, "block2": 0.0}])
def test_layer_weights_without_a_layer(given: dict[str, float]) -> None:
    refused(ValueError, "`layer_weights`", "above 0", repr(given), layer_weights=given)


@pytest.mark.parametrize("given", [-1, float("nan"), float("inf")])
def test_layer_weight_out_of_range(given: float) -> None:
    refused(ValueError, "layer_weights['block1']", ">= 0", repr(given), layer_weights={"block1": given, "block2": 1})


@pytest.mark.parametrize("given", [["block1"], "block1", 1.0, {"block1"}])
def test_layer_weights_of_another_type(given: object) -> None:
    refused(TypeError, "`layer_weights`", "mapping", repr(given), layer_weights=given)


def test_layer_weights_with_odd_entries() -> None:
    refused(TypeError, "`layer_weights`", "layer names", "3", layer_weights={3: 1.0})
    refused(TypeError, "layer_weights['block1']", "!!float 1e-1", layer_weights={"block1": "1e-1"})
    refused(TypeError, "layer_weights['block1']", "True", layer_weights={"block1": True})


@pytest.mark.parametrize("push_weight", [0, 0.3, 2])
def test_push_weight_does_not_go_with_a_fixed_margin(push_weight: float) -> None:
    refused(ValueError, "`push_weight`", repr(push_weight), "1.5", "relative", margin=1.5, push_weight=push_weight)


@pytest.mark.parametrize("given", [3, True, {"a": 1}, b"file"])
def test_weights_that_are_no_path(given: object) -> None:
    refused(TypeError, "`weights`", "path", repr(given), model="vgg", weights=given)


def test_no_weights_by_accident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in ("vgg", "efficientnet_lite0"):
        refused(ValueError, "`weights`", "path", "''", model=model, weights="")
        refused(FileNotFoundError, "there is nothing at", "random", model=model, weights=Path("random"))


@pytest.mark.parametrize("keywords", [{"push_weight": True}, {"swap": 0}, {"capped": 1.0}])
def test_numbers_and_flags_are_not_mixed_up(keywords: dict[str, Any]) -> None:
    refused(ValueError, "must be left out with criterion 'ratio'", criterion="ratio", **keywords)


@pytest.mark.parametrize("model", ["vgg", "efficientnet_lite0"])
def test_extractor_without_layers(model: str) -> None:
    with pytest.raises(ValueError, match=r"[Ll]ayer"), pytest.warns(UserWarning, match="untrained"):
        build_extractor(model, [], "random")


def test_layer_weights_are_not_modified() -> None:
    given = {"block3": 1.0, "block1": 0.0}
    CLPLoss("efficientnet_lite0", layer_weights=given)
    assert given == {"block3": 1.0, "block1": 0.0}


@pytest.mark.parametrize("given", ["max", [], [0, 0], [1, -1], ["1"], {"lr": 1}, 2])
def test_weights_over_negatives(given: object) -> None:
    with pytest.raises((TypeError, ValueError), match="`over_negatives` must"):
        CLPLoss("vgg", weights="random", criterion="batch_ratio", over_negatives=given)
