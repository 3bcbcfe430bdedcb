"""Each source of negatives by itself, and what the loss makes of several."""

import copy
import pickle
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import correlate1d
from torch import Tensor, nn

from clp_basicsr import CLPLoss
from clp_basicsr.negatives import Step, build_sources

from .oracles import upsampled


class Model:
    """A host's model: a network in training, its schedulers, and what it was fed."""

    def __init__(self, scale: int = 4) -> None:
        torch.manual_seed(0)
        self.net_g = nn.Sequential(
            nn.Conv2d(3, 3 * scale**2, 1), nn.PixelShuffle(scale), nn.BatchNorm2d(3, affine=False)
        )
        self.schedulers = [SimpleNamespace(last_epoch=0)]
        self.lq: Tensor | None = None

    def at(self, iteration: int) -> "Model":
        self.schedulers[0].last_epoch = iteration - 1
        return self


def images(size: int, seed: int, count: int = 3) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


GT, LR = images(32, 1), images(8, 2)
UPSAMPLED = upsampled(LR, (32, 32))
SR = (0.5 * GT + 0.5 * UPSAMPLED).requires_grad_()


def step(model: Model | None = None) -> Step:
    iteration = model.schedulers[0].last_epoch + 1 if model else 1
    return Step(GT, LR, UPSAMPLED, LR, lambda images: images, lambda: model, lambda: iteration)


def drawn(given: Any, model: Model | None = None) -> list[Tensor]:
    (source,) = build_sources([given])
    return [negative.images.roll(negative.shift, 0) for negative in source(step(model))]


def loss_with(negatives: Any, **keywords: Any) -> CLPLoss:
    return CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}, negatives=negatives, **keywords)


def test_blur_is_a_gaussian_of_the_drawn_width() -> None:
    (blurred,) = drawn({"type": "blur", "kernel": [7, 7], "sigma": [1.5, 1.5]})
    offsets = np.arange(-3, 4)
    kernel = np.exp(-0.5 * (offsets / 1.5) ** 2)
    kernel /= kernel.sum()
    expected = GT.numpy()
    for axis in (2, 3):
        expected = correlate1d(expected, kernel, axis=axis, mode="nearest")
    torch.testing.assert_close(blurred, torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_every_image_is_blurred_by_its_own_kernel() -> None:
    same = {"type": "blur", "count": 2}
    (source,) = build_sources([same])
    twins = Step(GT[:1].expand(3, -1, -1, -1), LR, UPSAMPLED, LR, lambda images: images, lambda: None, lambda: 1)
    first, second = (negative.images for negative in source(twins))
    different = {tuple(image.flatten()[:50].tolist()) for image in (*first, *second)}
    assert len(different) == 6
    assert all(torch.equal(*pair) for pair in zip(drawn(same), drawn(same)))  # seeded
    assert not torch.equal(drawn(same)[0], drawn({**same, "seed": 1})[0])


def gradient_norm(loss: CLPLoss, model: Model) -> float:
    return float(torch.autograd.grad(loss.bind(model)(SR, GT, LR), SR)[0].norm())


def test_blur_leaves_no_image_as_it_is() -> None:
    """A negative that is GT has no gap, and what is measured in gaps explodes."""
    model, loss = Model(), loss_with("blur")
    norms = [gradient_norm(loss, model.at(iteration)) for iteration in range(1, 60)]
    assert max(norms) < 5 * np.median(norms)


@pytest.mark.parametrize("kind", ["blur", "degraded"])
def test_what_is_drawn_differs_by_iteration_source_and_process_and_comes_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()

    def images_of(sources: list[Any], iteration: int) -> list[Tensor]:
        return [negative.images for source in sources for negative in source(step(model.at(iteration)))]

    twins = build_sources([kind, kind, {"type": kind, "seed": 1}])
    seen = [image for iteration in (1, 2) for image in images_of(twins, iteration)]
    seen += images_of(twins[:1], 2)  # another micro-batch of the same iteration
    resumed = images_of(build_sources([kind, kind, {"type": kind, "seed": 1}]), 2)
    assert all(torch.equal(*pair) for pair in zip(resumed, seen[3:6]))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    seen += images_of(build_sources([kind]), 1)
    assert len({tuple(images.flatten()[:50].tolist()) for images in seen}) == len(seen) == 8


def test_blur_takes_detail_away() -> None:
    for blurred in drawn({"type": "blur", "count": 5}):
        for image, gt in zip(blurred, GT):
            assert image.diff().abs().mean() <= gt.diff().abs().mean() + 1e-6
            assert image.mean().item() == pytest.approx(gt.mean().item(), abs=0.02)


def test_degraded_is_further_from_gt_than_lr_is() -> None:
    gt = torch.nn.functional.interpolate(LR, scale_factor=4, mode="bicubic").clamp(0, 1)
    for worse in drawn({"type": "degraded", "count": 4, "scale": [0.3, 0.6], "noise": [0.01, 0.02]}):
        assert (worse - gt).abs().mean() > 0.02
        assert 0 <= worse.min() <= worse.max() <= 1


def test_degraded_by_nothing_is_lr() -> None:
    (same,) = drawn({"type": "degraded", "scale": [1, 1], "noise": [0, 0]})
    torch.testing.assert_close(same, UPSAMPLED)


def test_degraded_is_made_smaller_by_the_mean_over_areas() -> None:
    """Each pixel of LR counts, or what is left would depend on which ones are met."""
    (smaller,) = drawn({"type": "degraded", "scale": [0.5, 0.5], "noise": [0, 0]})
    torch.testing.assert_close(smaller, upsampled(F.avg_pool2d(LR, 2), (32, 32)))


def test_degraded_draws_how_noisy_it_is() -> None:
    grey = torch.full((1, 3, 32, 32), 0.5)
    flat = Step(
        grey, grey, grey, grey, lambda images: images, lambda: None, lambda: 1
    )  # of one size: nothing is resized
    (source,) = build_sources([{"type": "degraded", "count": 50, "scale": [1, 1], "noise": [0.02, 0.1]}])
    spreads = [negative.images.std().item() for negative in source(flat)]
    assert (min(spreads), max(spreads)) == pytest.approx((0.02, 0.1), abs=0.01)
    assert np.mean(spreads) == pytest.approx(0.06, abs=0.01)


@pytest.mark.parametrize(("of", "pool"), [("gt", GT), ("lr", UPSAMPLED)])
def test_batch_gives_all_others_and_never_the_own(of: str, pool: Tensor) -> None:
    others = drawn({"type": "batch", "of": of})
    assert len(others) == 2
    for image in range(3):
        seen = {next(i for i in range(3) if torch.equal(other[image], pool[i])) for other in others}
        assert seen == {0, 1, 2} - {image}


def test_batch_takes_as_many_as_it_is_told() -> None:
    (neighbours,) = drawn({"type": "batch", "count": 1})
    assert torch.equal(neighbours, GT[[2, 0, 1]])


def test_batch_costs_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, sizes = loss_with(["lr", "batch"], criterion="infonce"), []
    extract = loss.extractor.extract
    monkeypatch.setattr(loss.extractor, "extract", lambda batch: sizes.append(len(batch)) or extract(batch))
    loss(SR, GT, LR)
    assert sizes == [6, 3]  # GT and LR of three images, then SR


def test_batch_value_equals_rolled_images() -> None:
    """The same through files of rolled images: features by another way."""
    model = Model()
    model.neg = torch.stack([GT.roll(1, 0), GT.roll(2, 0)], 1)  # type: ignore[attr-defined]
    by_files = loss_with("files", criterion="infonce").bind(model)
    torch.testing.assert_close(
        loss_with("batch", criterion="infonce")(SR, GT, LR), by_files(SR, GT, LR), rtol=1e-5, atol=0
    )


def test_lagged_follows_the_network_by_the_rhythm() -> None:
    model = Model()
    (source,) = build_sources([{"type": "lagged", "every": 10, "decay": 0.25, "start": 5}])
    states = {}
    for iteration in (1, 5, 9, 14, 15, 16, 25):
        with torch.no_grad():
            model.net_g[0].weight.fill_(iteration)
            model.net_g[2].running_mean.fill_(iteration)
            model.net_g[2].num_batches_tracked.fill_(iteration)
        made = source(step(model.at(iteration)))
        copied = source.network  # type: ignore[attr-defined]
        states[iteration] = (
            (copied[0].weight.mean().item(), copied[2].running_mean.mean().item(), int(copied[2].num_batches_tracked))
            if made
            else None
        )
    second = 0.25 * 5 + 0.75 * 15
    third = 0.25 * second + 0.75 * 25
    assert states == {
        1: None,
        5: (5, 5, 5),
        9: (5, 5, 5),
        14: (5, 5, 5),
        15: (second, second, 15),
        16: (second, second, 15),
        25: (third, third, 25),
    }


def test_ema_is_a_moving_average_of_the_network() -> None:
    model = Model()
    (source,) = build_sources("ema")
    expected = 1.0
    for iteration in range(1, 6):
        with torch.no_grad():
            model.net_g[0].weight.fill_(iteration)
        source(step(model.at(iteration)))
        expected = 0.999 * expected + 0.001 * iteration
    assert source.network[0].weight.mean().item() == pytest.approx(expected, rel=1e-5)  # type: ignore[attr-defined]


def test_lagged_is_the_copys_output_and_leaves_the_network_alone() -> None:
    model = Model().at(1)
    before = copy.deepcopy(model.net_g.state_dict())
    (made,) = drawn("lagged", model)
    torch.testing.assert_close(made, copy.deepcopy(model.net_g).eval()(LR).clamp(0, 1).detach())
    assert model.net_g.training
    assert not made.requires_grad
    assert all(torch.equal(before[name], value) for name, value in model.net_g.state_dict().items())


class Watched(nn.Module):
    """A network that somebody looks into: it keeps what it computes, and its hooks do so elsewhere."""

    def __init__(self, inner: nn.Module, owner: Model) -> None:
        super().__init__()
        self.inner, self.kept = inner, [torch.zeros(1)]
        self.seen: list[Tensor] = []
        owner.undeepcopyable = self.inner[0].weight * 1  # type: ignore[attr-defined, index]
        inner.register_forward_hook(lambda module, given, made: seen.append(made))
        inner.register_forward_hook(owner.save)  # type: ignore[attr-defined]

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.inner(images)
        self.kept = [made]
        return made


class Watching(Model):
    def save(self, module: nn.Module, given: Any, made: Tensor) -> None:
        self.saved = made


seen: list[Tensor] = []


def test_lagged_copies_neither_hooks_nor_what_was_kept() -> None:
    plain, model = Model(), Watching()
    model.net_g = Watched(model.net_g, model)  # type: ignore[assignment]
    own = model.net_g(LR)
    plain.net_g(LR)  # its batch norm has seen the same, too
    seen.clear()
    expected = drawn("lagged", plain.at(1))[0]
    torch.testing.assert_close(drawn("lagged", model.at(1))[0], expected, rtol=1e-5, atol=1e-6)
    assert not seen
    assert model.saved is own


@pytest.mark.parametrize("normalise", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lagged_keeps_hooks_that_make_weights(normalise: Any) -> None:
    model = Model()
    normalise(model.net_g[0])
    model.net_g(LR)
    (source,) = build_sources([{"type": "lagged", "every": 1}])
    for iteration in (1, 2):
        with torch.no_grad():
            for parameter in model.net_g.parameters():
                parameter.mul_(iteration)
        (made,) = source(step(model.at(iteration)))
        torch.testing.assert_close(made.images, copied_by_its_state(model).eval()(LR).clamp(0, 1).detach())


class EqualLR:
    """As in StyleGAN: the weight that is trained is another one, which a hook scales before each pass."""

    def __call__(self, module: nn.Module, given: Any) -> None:
        module.weight = module.weight_orig * 0.5  # type: ignore[operator]


@pytest.mark.parametrize("grad", [True, False])
def test_lagged_keeps_somebody_elses_hooks_that_make_weights(grad: bool) -> None:
    model = Model()
    convolution: Any = model.net_g[0]
    weight = convolution.weight
    del convolution._parameters["weight"]
    convolution.weight_orig = weight
    convolution.register_forward_pre_hook(EqualLR())
    with torch.set_grad_enabled(grad):
        model.net_g(LR)
    (source,) = build_sources([{"type": "lagged", "every": 1}])
    for iteration in (1, 2):
        with torch.no_grad():
            weight.mul_(iteration)
        (made,) = source(step(model.at(iteration)))
        plain = Model().net_g
        plain.load_state_dict({**model.net_g.state_dict(), "0.weight": weight * 0.5}, strict=False)
        torch.testing.assert_close(made.images, plain.eval()(LR).clamp(0, 1).detach())


def test_rolled_negatives_alone_are_not_ones_own() -> None:
    """As many negatives as batches of images, and none of them where it stands."""
    loss, model = loss_with([{"type": "batch", "of": "lr", "count": 1}], criterion="infonce"), Model()
    others = loss_with("files", criterion="infonce").bind(model)
    model.neg = UPSAMPLED[:2].flip(0)  # type: ignore[attr-defined]
    torch.testing.assert_close(loss(SR[:2], GT[:2], LR[:2]), others(SR[:2], GT[:2], LR[:2]), rtol=1e-5, atol=0)


def copied_by_its_state(model: Model) -> nn.Module:
    """Not by `copy.deepcopy`, which is what is tested."""
    other = Model().net_g
    for hook in model.net_g[0]._forward_pre_hooks.values():
        kind = nn.utils.weight_norm if type(hook).__name__ == "WeightNorm" else nn.utils.spectral_norm
        kind(other[0])
    other.load_state_dict(model.net_g.state_dict())
    return other


def test_lagged_names_itself_where_the_network_cannot_be_copied_or_called() -> None:
    model = Model().at(1)
    model.net_g.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(
        TypeError, match=r"The negative `lagged` needs a copy of `net_g`\. A Sequential cannot be copied"
    ):
        drawn("lagged", model)
    model.net_g = nn.Bilinear(1, 1, 1)  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"The negative `ema` calls a copy of `net_g` with the LR batch alone.*input2"):
        drawn("ema", model)


class OfClips(nn.Module):
    """A recurrent network, as far as shapes go: clips ``(N, T, 3, h, w)`` to clips."""

    def __init__(self, of_frames: nn.Module) -> None:
        super().__init__()
        self.of_frames = of_frames

    def forward(self, clips: Tensor) -> Tensor:
        made: Tensor = self.of_frames(clips.flatten(0, 1))
        return made.unflatten(0, clips.shape[:2])


def test_lagged_of_clips_is_that_of_their_frames() -> None:
    by_frames, recurrent = Model(), Model()
    recurrent.net_g = OfClips(recurrent.net_g)  # type: ignore[assignment]
    expected = loss_with("lagged").bind(by_frames)(SR, GT, LR)
    assert expected > 0
    of_a_clip = loss_with("lagged").bind(recurrent)(SR[None], GT[None], LR[None])
    torch.testing.assert_close(of_a_clip, expected)


def test_lagged_without_schedulers_counts_calls() -> None:
    model = Model()
    del model.schedulers
    model.lq = LR
    loss, seen = loss_with({"type": "lagged", "every": 2}).bind(model), []
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            model.net_g[0].weight.fill_(value)
        loss(SR, GT)
        seen.append(loss.sources[0].network[0].weight.mean().item())  # type: ignore[attr-defined]
    assert seen == [1.0, 1.0, 3.0]


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_lagged_copies_networks_whose_weights_are_computed(norm: Any) -> None:
    model = Model()
    model.net_g[0] = norm(model.net_g[0])
    expected = model.net_g(LR)  # leaves its result, a part of a graph, in the module
    expected = model.net_g.eval()(LR).clamp(0, 1).detach()
    model.net_g.train()
    (made,) = drawn("lagged", model)
    torch.testing.assert_close(made, expected)


def test_lagged_follows_the_model_that_the_loss_is_bound_to() -> None:
    first, second = Model(), Model()
    with torch.no_grad():
        second.net_g[0].weight.add_(0.1)
    loss = loss_with("lagged")
    values = [loss.bind(model)(SR, GT, LR).item() for model in (first, second, first)]
    assert values[1] == loss_with("lagged").bind(second)(SR, GT, LR).item()
    assert values[0] == values[2] != values[1]


def test_lagged_goes_on_after_a_first_validation_in_inference_mode() -> None:
    model = Model()
    loss = loss_with({"type": "lagged", "every": 1}).bind(model)
    with torch.inference_mode():
        loss(SR.detach(), GT, LR)
    for iteration in (2, 3):
        assert loss.bind(model.at(iteration))(SR, GT, LR).isfinite()


def test_a_rehearsal_has_negatives_that_start_later_and_leaves_no_trace() -> None:
    model, sources = Model(), [{"type": "lagged", "start": 3}, "blur"]
    late, only = (loss_with(sources[:count], start_iter=2).bind(model) for count in (2, 1))
    for iteration in (1, 2):
        assert late(SR, GT, LR) == only.bind(model.at(iteration))(SR, GT, LR) == 0
    with torch.no_grad():
        model.net_g[0].weight.add_(0.1)
    fresh = loss_with(sources).bind(model.at(3))
    assert late(SR, GT, LR) == fresh(SR, GT, LR) > 0
    other = Model(scale=2)
    with pytest.raises(ValueError, match="shape of `target`"):
        loss_with(sources, start_iter=2).bind(other)(SR, GT, LR)


def test_models_with_schedulers_of_another_make() -> None:
    model = Model()
    model.schedulers = {"g": model.schedulers[0]}  # type: ignore[assignment]
    assert loss_with(["lr", "blur"]).bind(model)(SR, GT, LR).isfinite()


def test_lagged_in_the_loss() -> None:
    model = Model().at(1)
    loss = loss_with(["lr", "lagged"]).bind(model)
    value = loss(SR, GT, LR)
    assert value.isfinite()
    assert value != loss_with("lr")(SR, GT, LR)
    assert torch.autograd.grad(value, SR)[0].abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.net_g.parameters())
    assert not loss.state_dict()
    twin = pickle.loads(pickle.dumps(loss))
    assert twin.sources[1].network is None


@pytest.mark.parametrize(
    ("negatives", "model", "said"),
    [
        ("lagged", None, "bound to no model"),
        ("lagged", SimpleNamespace, "without one"),
        ("lagged", lambda: Model(scale=2), "shape of `target`"),
        ("files", None, "PairedNegativeDataset"),
        ("batch", None, "at least one negative"),
    ],
)
def test_sources_that_cannot_serve(negatives: str, model: Any, said: str) -> None:
    loss, owner = loss_with(negatives), model and model()
    loss.bound_model = lambda: owner  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r".") as caught:
        loss(SR[:1], GT[:1], LR[:1])
    assert said in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_supplied_are_brought_to_gts_range_and_precision(dtype: torch.dtype) -> None:
    """Images of another method may overshoot, as a resized or a float one does."""
    model = Model()
    model.neg = (2 * GT - 0.5).to(dtype)  # type: ignore[attr-defined]
    (made,) = drawn("files", model)
    torch.testing.assert_close(made, model.neg.clamp(0, 1).float())  # type: ignore[attr-defined]


def test_supplied_of_another_size() -> None:
    model = Model()
    model.neg = LR  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"`files` must have the shape of `target`"):
        loss_with("files").bind(model)(SR, GT, LR)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (GT.mul(255).byte(), TypeError, "floating point"),
        (GT[0], ValueError, "(N, 3, H, W)"),
        (GT[:, :2], ValueError, "1 or 3 channels"),
        ([GT], TypeError, "torch.Tensor"),
        (GT[:, None][:, :0], ValueError, "empty"),
    ],
    ids=["8 bits", "one image", "two channels", "list", "no folders"],
)
@pytest.mark.parametrize("source", ["files", "lagged"])
def test_images_of_the_model_that_cannot_be_meant(source: str, given: Any, kind: type[Exception], said: str) -> None:
    model = Model()
    model.neg, model.net_g = given, Returning(given)  # type: ignore[attr-defined]
    with pytest.raises(kind, match="`neg`" if source == "files" else r"`net_g\(lq\)`") as caught:
        loss_with(source).bind(model)(SR, GT, LR)
    assert said in str(caught.value)


class Returning(nn.Module):
    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given

    def forward(self, images: Tensor) -> Any:
        return self.given


def test_relative_is_the_mean_over_its_negatives() -> None:
    alone = [loss_with(each)(SR, GT, LR) for each in ("lr", {"type": "blur", "seed": 3})]
    both = loss_with(["lr", {"type": "blur", "seed": 3}])(SR, GT, LR)
    torch.testing.assert_close(both, torch.stack(alone).mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ("blurr", ValueError, "Did you mean 'blur'?"),
        ([], ValueError, "at least one source"),
        (None, ValueError, "must be one of"),
        (["lr", 3], ValueError, "must be one of"),
        ({"count": 2}, ValueError, "'files', 'batch'], but got one with only ['count']."),
        ({"typ": "blur"}, ValueError, "but got one with only ['typ']. Did you mean 'type'?"),
        ({"type": None}, ValueError, "must be one of"),
        ({"type": "blur", "sigmas": 2}, TypeError, "Did you mean 'sigma'?"),
        ({"type": "blur", "count": 0}, ValueError, "source 'blur'"),
        ({"type": "blur", "kernel": [4, 8]}, ValueError, "odd"),
        ({"type": "blur", "sigma": [2, 1]}, ValueError, "[smallest, largest]"),
        ({"type": "blur", "sigma": 2}, TypeError, "two numbers"),
        ({"type": "blur", "sigma": [0, 1]}, ValueError, "`sigma` must be two numbers > 0"),
        ({"type": "blur", "sigma": b"ab"}, TypeError, "two numbers"),
        ({"type": "blur", "kernel": [1, 999_999]}, ValueError, "up to 255"),
        ({"type": "blur", "count": 10**9}, ValueError, "<= 100"),
        ({"type": "degraded", "count": 101}, ValueError, "<= 100"),
        ({"type": "blur", "seed": -1}, ValueError, "`seed` must be a whole number >= 0"),
        ({"type": "degraded", "seed": "one"}, TypeError, "`seed` must be a whole number >= 0"),
        ({"type": "degraded", "scale": [0.5, 2]}, ValueError, "up to 1"),
        ({"type": "lagged", "decay": 1}, ValueError, "never changes"),
        ({"type": "lagged", "every": 0.5}, TypeError, "whole number"),
        ({"type": "batch", "of": "sr"}, ValueError, "['gt', 'lr']"),
    ],
)
def test_settings_that_cannot_be_meant(given: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=r".") as caught:
        loss_with(given)
    assert said in str(caught.value)


@pytest.mark.parametrize("negatives", [["lr", "blur", "degraded", "batch"], "degraded"])
def test_copies_go_on_alike(negatives: Any) -> None:
    loss = loss_with(negatives)
    twins = [copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))]
    for _ in range(2):
        value = loss(SR, GT, LR)
        assert all(torch.equal(twin(SR, GT, LR), value) for twin in twins)
