"""CLPLoss: the contrastive perceptual loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clp_basicsr import arguments
from clp_basicsr.autograd_graphs import inside_a_backward_pass
from clp_basicsr.balance import Balance
from clp_basicsr.binding import BoundModule
from clp_basicsr.chunks import evaluate_in_chunks, merged
from clp_basicsr.clock import Clock, iteration_of
from clp_basicsr.compiling import EAGER, Functions, compiled
from clp_basicsr.criteria import Terms, build_criterion
from clp_basicsr.diagnostics import Diagnostics
from clp_basicsr.extractors import build_extractor
from clp_basicsr.extractors.base import FeatureExtractor
from clp_basicsr.extractors.precision import PRECISIONS
from clp_basicsr.float16_range import features_in_range
from clp_basicsr.frames import as_images
from clp_basicsr.gpu.distances import make_ready
from clp_basicsr.images import as_rgb, at_least_float32, check_images, check_tensor
from clp_basicsr.negatives import (
    Negative,
    Source,
    Step,
    build_sources,
    depend_on_the_iteration,
    upsampled_lr,
)
from clp_basicsr.presets import with_presets
from clp_basicsr.probe import Probe
from clp_basicsr.references import References
from clp_basicsr.schedule import Schedule
from clp_basicsr.summary import Summary, summary_of

MODEL = "dinov2"
"""The network of a loss that is not told which."""


class CLPLoss(BoundModule):
    """Pulls SR towards GT and pushes it away from LR, in the feature space of a frozen network.

    With the default ``margin="relative"`` the value is about 0.9 (1 + ``push_weight``) x ``loss_weight``
    where SR equals the upsampled LR, 0 only where SR's features equal GT's, and of the same scale in every
    layer, crop size and network.

    Example:
        >>> loss = CLPLoss(model="vgg", loss_weight=0.1)
        >>> loss(sr, target, lr).backward()

    After a call ``loss.summary`` holds ``pull``, ``push`` and ``active`` of that call.
    """

    @with_presets
    def __init__(
        self,
        model: str | Path = MODEL,
        *,
        preset: str | None = None,
        weights: str | Path | None = None,
        loss_weight: float = 1.0,
        auto_weight: float | None = None,
        start_iter: int = 0,
        warmup_iter: int = 0,
        layer_weights: Mapping[str, float] | None = None,
        criterion: str = "triplet",
        margin: str | float = "relative",
        push_weight: float = 1.0,
        swap: bool = False,
        soft: bool = False,
        reduction: str = "mean",
        floor: float = 0.1,
        over_negatives: str | Sequence[float] = "mean",
        temperature: float = 0.07,
        capped: bool = True,
        distance: str = "l2",
        negatives: str | Sequence[str | Mapping[str, Any]] = "lr",
        align_corners: bool = False,
        invert_equal_pixels: bool = False,
        use_input_norm: bool = True,
        range_norm: bool = False,
        input_scale: float = 1.0,
        precision: str = "float32",
        compile: bool = False,
        checkpoint: bool = False,
        chunk: int | None = None,
        diagnostics: bool = True,
        **unknown: Any,
    ) -> None:
        """Build the loss and its network.

        Args:
            model: "vgg", "dinov2", "dinov2_small" … "dinov2_giant_reg", "dinov3_…",
                "efficientnet_lite0", "torchvision:resnet50", "timm:convnext_tiny", a Hugging Face id, or a
                checkpoint folder.
            preset: a key of `clp_basicsr.presets.PRESETS`: a published loss ("aecr", "csd", "c2pnet",
                "rlfn", "pcl"); what is given beside it overrules it.
            weights: None for the published weights, a path to a file (VGG, EfficientNet-Lite, torchvision,
                timm) or checkpoint folder (Hugging Face), or "random" for an untrained network.
            loss_weight: multiplies the result; > 0. With ``auto_weight`` it is the largest weight allowed.
            auto_weight: keeps the norm of the loss's gradient at the SR image at this share of the pixel
                loss's (the model's ``cri_pix``; L1 without a model); None for a constant weight.
            start_iter: up to this iteration the loss is 0 and, after the first, costs nothing.
            warmup_iter: iterations after ``start_iter`` in which the weight grows linearly to its full size.
            layer_weights: ``{layer: weight}``; None for the network's defaults.
            criterion: a key of ``clp_basicsr.criteria.CRITERIA``.
            margin: "relative" (the gap GT-LR itself), or a number > 0 for exactly
                ``torch.nn.TripletMarginLoss(margin)``.
            push_weight: weight of "away from LR" with ``margin="relative"`` and ``directional``; 0
                leaves a plain perceptual loss in the same units.
            swap: with a fixed margin: the negative distance is the smaller of SR-LR and GT-LR.
            soft: with a fixed margin: softplus in the hinge's place.
            reduction: with a fixed margin: "mean" over all terms, or "nonzero" over those above 0.
            floor: with ``ratio``: the share of the gap GT-LR that is added to the denominator.
            over_negatives: with ``batch_ratio``: "mean" or "sum" over the negatives, or their K weights in a
                weighted mean.
            temperature: with ``infonce``.
            capped: with ``infonce``: no reward for being less like the negative than GT is.
            distance: "l2" or "l1" per image and channel over positions, or "cosine" over channels
                per position.
            negatives: the images to push away from: names out of `clp_basicsr.negatives.SOURCES` ("lr",
                "blur", "degraded", "lagged", "ema", "files", "batch") or mappings with their settings, such as
                ``["lr", {"type": "blur", "count": 3}]``.
            align_corners: resize LR as the first CLPLoss did; shifts the negative.
            invert_equal_pixels: replace negative pixels equal to GT by ``1 - GT``, as the first
                implementation did; kills the loss on images with borders.
            use_input_norm: normalise with the mean and standard deviation of the network's training: ImageNet's
                for VGG and the DINOs, each network's own for the others.
            range_norm: images are in [-1, 1] and are mapped to [0, 1] first.
            input_scale: multiplies the images on their way into the network; 255 reproduces CSD.
            precision: "float32", or "bfloat16" / "float16" to run the network under autocast; "auto" is
                bfloat16 on GPUs that have arithmetic for it, float32 elsewhere.
            compile: compile the network's passes and the criterion, at the first calls.
            checkpoint: keep no activations inside the network's blocks; SR's pass is computed twice.
            chunk: evaluate this many images at a time and keep only the gradient at the images; the same
                loss in less memory, for criteria whose value is the mean over images.
            diagnostics: measure every tenth call layer by layer (see `diagnostics`), and every hundredth
                the gradient at the SR image beside the pixel loss's.
            **unknown: none; a misspelt keyword is answered with the nearest real one.

        Raises:
            TypeError: for an unknown keyword or a value of the wrong type.
            ValueError: for a value that is not allowed, or weights of another network.
            FileNotFoundError: if the weights cannot be had.
            ImportError: if the network's package is not installed.
        """
        super().__init__()
        arguments.reject_unknown_keywords(unknown, KEYWORDS)
        self.loss_weight = arguments.number("loss_weight", loss_weight)
        share = None if auto_weight is None else arguments.number("auto_weight", auto_weight)
        self.balance = None if share is None else Balance(share, cap=self.loss_weight)
        self.schedule = Schedule(start_iter, warmup_iter)
        self.align_corners = arguments.flag("align_corners", align_corners)
        self.invert_equal_pixels = arguments.flag("invert_equal_pixels", invert_equal_pixels)
        self.range_norm = arguments.flag("range_norm", range_norm)
        self.input_scale = arguments.number("input_scale", input_scale)
        options = {
            "margin": margin,
            "push_weight": push_weight,
            "swap": swap,
            "soft": soft,
            "reduction": reduction,
            "floor": floor,
            "over_negatives": over_negatives,
            "temperature": temperature,
            "capped": capped,
        }
        self.criterion = build_criterion(criterion, distance, options)
        self.sources = build_sources(negatives)
        self.clock = Clock()
        timeless = self.schedule.always_full and share is None and not depend_on_the_iteration(self.sources)
        self._counts = not timeless  # under torch.compile each new count could mean a new graph
        given_weights = arguments.layer_weights(layer_weights)
        self.extractor = build_extractor(
            model,
            None if given_weights is None else list(given_weights),
            weights,
            use_input_norm=arguments.flag("use_input_norm", use_input_norm),
            precision=arguments.choice("precision", precision, list(PRECISIONS)),
        )
        if arguments.flag("checkpoint", checkpoint):
            self.extractor.recompute()
        self.compiles = arguments.flag("compile", compile)
        self._compiled: Functions | None = None
        self.chunk = None if chunk is None else arguments.count("chunk", chunk)
        if self.chunk is not None:
            self._check_that_images_stand_alone()
        chosen_weights = given_weights or self.extractor.default_layer_weights
        self.layer_weights = {layer: chosen_weights[layer] for layer in self.extractor.layers}
        images = (range_norm, use_input_norm, self.input_scale, align_corners, invert_equal_pixels)
        features = (self.extractor.name, self.layer_weights, self.criterion, self.sources, images)
        self.key = repr((features, self.loss_weight, share))
        """What tells this loss from others in a training state."""
        self.summary: Summary | None = None
        self.summary_is_of_a_training_step = False
        self._evaluated = False
        self._probe = Probe() if arguments.flag("diagnostics", diagnostics) else None
        self.weight: float | Tensor = self.loss_weight

    def forward(self, sr: Tensor, target: Tensor, lr: Tensor | None = None) -> Tensor:
        """Return the loss as a 0-dim tensor; gradient flows into ``sr`` alone.

        Args:
            sr: super-resolved images ``(N, 3, H, W)`` or ``(N, 1, H, W)``, about [0, 1], unclamped;
                or clips ``(N, T, 3, H, W)``.
            target: ground truth of the same shape, values in [0, 1].
            lr: low-quality input ``(N, 3, h, w)``, ``h <= H``, ``w <= W``, values in [0, 1], or
                clips ``(N, T, 3, h, w)`` (see `clp_basicsr.frames.as_images`); None for the batch of
                `negatives`, or else of the model this loss is bound to.

        Raises:
            TypeError: if an input is not a floating point tensor.
            ValueError: if shapes, channels, sizes or devices do not fit, ``lr`` is None and the
                loss is bound to no model that has one, or it is computed again in a backward pass
                where that would give another loss.
        """
        if self._counts and inside_a_backward_pass():
            raise ValueError(
                "CLPLoss must not be computed again in the backward pass, as torch.utils.checkpoint does, where it "
                "counts iterations or draws its negatives: it would be another loss. Leave it out of what is "
                "checkpointed; `checkpoint: true` computes its network again, and nothing else."
            )
        if self._counts and torch.is_grad_enabled() and getattr(sr, "requires_grad", False):
            self.clock.tick()
        strength = 1.0 if self.schedule.always_full else self.schedule.strength(self._iteration())
        if not strength:
            self.rehearse(sr, target, lr)
            return (sr * 0).sum().float()  # in the graph of every parameter, as DistributedDataParallel wants it
        check_tensor("sr", sr)
        sr = at_least_float32(sr)  # in float16 its gradient, which is measured, would underflow
        probe = self._probe if self._probe is not None and self._probe.gradient_is_due(sr) else None
        if probe is not None:
            sr = sr.view_as(sr)  # of our own: what arrives there is this loss's gradient alone
        value = self.evaluate(sr, target, lr)
        self.weight = self._full_weight(value, sr, target) * strength
        loss = value * self.weight
        if probe is not None:
            probe.watch_gradient(loss, self.weight, sr, target, self._model_if_one())
        return loss

    def evaluate(self, sr: Tensor, target: Tensor, lr: Tensor | None = None) -> Tensor:
        """Return the loss at weight 1, whatever the schedule says; arguments and errors are those of `forward`."""
        given_lr = self.bound_lr() if lr is None else lr
        sr, target, lr = as_images(sr, target, given_lr)
        check_images(sr, target, lr)
        sr, target, lr = (self.prepared(images) for images in (sr, target.detach(), lr.detach()))
        with torch.no_grad():
            references = References.of(target, self.draw_negatives(target, lr, given_lr.detach()))
        probe = self._probe if self._probe is not None and self._layers_are_due(self._probe, target) else None
        chunks: list[tuple[float, list[Terms]]] = []

        def value_of(images: Tensor, rows: slice, share: float) -> Tensor:
            own = references if self.chunk is None else references.rows(rows)
            terms = self._terms(images, own, probe, share)
            chunks.append((share, terms))
            total = torch.stack([term.loss for term in terms]).sum()
            return total / self.criterion.normaliser(list(self.layer_weights.values()))

        self.extractor.make_ready(sr)  # an autocast could not say what is wrong
        # A host's autocast would reach the backward passes that `chunk` walks and `compile` traces in here.
        with torch.autocast(sr.device.type, enabled=False):
            value = (
                value_of(sr, slice(None), 1.0) if self.chunk is None else evaluate_in_chunks(sr, self.chunk, value_of)
            )
        self.summary = summary_of(merged(chunks), list(self.layer_weights.values()))
        self.summary_is_of_a_training_step = value.requires_grad
        self._evaluated = True
        return value

    def _terms(self, sr: Tensor, references: References, probe: Probe | None, share: float) -> list[Terms]:
        """Return the terms of each layer for some images, a ``share`` of the batch, and show them to ``probe``."""
        run = self._functions(sr.device)
        with torch.no_grad():
            features = self.features(references.images(), run.run_references)
        anchors = self._anchors(sr, run)
        split = {layer: references.split(features[layer]) for layer in self.layer_weights}
        terms = run.terms_by_layer(self.criterion, self.layer_weights, anchors, split)
        if probe is not None:
            for layer, term in zip(self.layer_weights, terms):
                probe.add_layer(layer, anchors[layer], *split[layer], term, share)
        return terms

    def _anchors(self, sr: Tensor, run: Functions) -> dict[str, Tensor]:
        def maps_of(images: Tensor) -> dict[str, Tensor]:
            return self.features(images, run.run_anchors)

        return features_in_range(maps_of, sr) if self.extractor.computes_in_float16 else maps_of(sr)

    def rehearse(self, sr: Tensor, target: Tensor, lr: Tensor | None = None) -> None:
        """Evaluate without a trace what was never evaluated yet, so that what cannot work is said early.

        For a loss whose turn comes late, after ``start_iter`` or a GAN's warm-up; arguments and errors
        are those of `forward`.
        """
        if self._evaluated:
            return
        sources, self.sources = self.sources, [source.for_rehearsal() for source in self.sources]
        try:
            with torch.no_grad():
                self.evaluate(sr, target, lr)
        finally:
            self.sources = sources
        self.take_summary()

    def take_summary(self) -> Summary | None:
        """Return ``summary`` and forget it, so that a later step does not report it again."""
        summary, self.summary = self.summary, None
        return summary

    @property
    def diagnostics(self) -> Diagnostics | None:
        """What was measured last; ``loss.diagnostics.read()`` brings it to the CPU. None if nothing was."""
        return None if self._probe is None else self._probe.latest(self.weight)

    def prepared(self, images: Tensor) -> Tensor:
        """Return images of the host's value range and 1 or 3 channels as RGB in about [0, 1], at least float32."""
        images = as_rgb(at_least_float32(images))
        return (images + 1) / 2 if self.range_norm else images

    def features(
        self, images: Tensor, run: Callable[[FeatureExtractor, Tensor], dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        """Return the network's feature maps of `prepared` images, by layer; without ``run`` in at least float32."""
        images = images if self.input_scale == 1 else images * self.input_scale
        return self.extractor(images) if run is None else run(self.extractor, images)

    def draw_negatives(
        self, target: Tensor, lr: Tensor, given_lr: Tensor, sources: Sequence[Source] | None = None
    ) -> list[Negative]:
        """Return the negatives of `prepared` images.

        Args:
            target: ground truth ``(N, 3, H, W)`` in [0, 1].
            lr: low-quality input ``(N, 3, h, w)`` in [0, 1].
            given_lr: the same as the model has it.
            sources: what to draw from; None for the loss's own.

        Raises:
            TypeError: if what a model or a batch brings is no floating point tensor.
            ValueError: if the sources give none now, or a model or a batch does not bring what they need.
        """
        upsampled = upsampled_lr(
            lr, target, align_corners=self.align_corners, invert_equal_pixels=self.invert_equal_pixels
        )
        step = Step(target, lr, upsampled, given_lr, self.prepared, self.bound_model, self._iteration_to_draw_in)
        drawn = [negative for source in (self.sources if sources is None else sources) for negative in source(step)]
        if not drawn:
            raise ValueError(
                "Argument `negatives` must give at least one negative at every call, but its sources gave none: "
                "`batch` has none in a batch of one, `lagged` none before `start`. Add 'lr'."
            )
        return drawn

    def extra_repr(self) -> str:
        """Show the settings in ``print(loss)``; of those that leave the loss as it is, what is not the default."""
        settings = {
            "loss_weight": self.loss_weight,
            "auto_weight": self.balance and self.balance.share,
            "start_iter": self.schedule.start_iter,
            "warmup_iter": self.schedule.warmup_iter,
            "criterion": self.criterion,
            "negatives": self.sources,
            "layer_weights": self.layer_weights,
            "precision": self.extractor.precision if self.extractor.precision != "float32" else None,
            "compile": self.compiles,
            "chunk": self.chunk,
        }
        return ", ".join(f"{name}={value}" for name, value in settings.items() if value)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process and this step."""
        return {**super().__getstate__(), "summary": None, "_probe": self._probe and Probe(), "_compiled": None}

    def _functions(self, device: torch.device) -> Functions:
        if not self.compiles or torch.compiler.is_compiling() or not self.extractor.gains_from_compilation(device):
            return EAGER
        make_ready(device)
        if self._compiled is None:
            self._compiled = compiled(self.extractor.prefers_channels_last(device))
        return self._compiled

    def _check_that_images_stand_alone(self) -> None:
        reason = None
        if not self.criterion.is_mean_over_images:
            reason = f"the criterion {self.criterion} pools them"
        elif any(source.takes_other_images for source in self.sources):
            reason = "the negatives 'batch' are the other images"
        if reason is not None:
            raise ValueError(
                f"Argument `chunk` must be left out where the images of a batch do not stand alone, but got "
                f"{self.chunk}, and {reason}. Use `checkpoint: true`, or another criterion."
            )

    def _full_weight(self, value: Tensor, sr: Tensor, target: Tensor) -> float | Tensor:
        if self.balance is None:
            return self.loss_weight
        name = self.name_among_twins()
        key = f"{name}: {self.key}" if name else self.key
        return self.balance.weight(key, self._iteration(), value, sr, target, self.bound_model())

    def _layers_are_due(self, probe: Probe, target: Tensor) -> bool:
        return probe.begin(target, None if torch.compiler.is_compiling() else iteration_of(self._model_if_one()))

    def _iteration(self) -> int:
        return self.clock.read(self.bound_model())

    def _iteration_to_draw_in(self) -> int:
        return self.clock.read(self._model_if_one())  # of none, any number does that changes

    def _model_if_one(self) -> Any | None:
        """Return the bound model; None where several hold this loss and the LR batch was passed."""
        try:
            return self.bound_model()
        except ValueError:
            return None


KEYWORDS = tuple(list(inspect.signature(CLPLoss.__init__).parameters)[1:-1])
"""What the loss can be told: all but ``self`` and ``**unknown``."""
