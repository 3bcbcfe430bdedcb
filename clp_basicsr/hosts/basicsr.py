"""BasicSR: its import on a current torchvision, the registered loss, the LR batch, the log lines.

BasicSR's classes are touched from outside, so that any subclass is covered, imported before or after:

- `BaseModel.__init__` remembers each model (weakly), so that a loss finds the model that holds it and
  with it the LR batch `lq`; `BaseModel.reduce_loss_dict` gets the loss's numbers beside BasicSR's own,
  so that they are reduced, printed and sent to TensorBoard as these are (`serving`).
- `optimize_parameters`, of any class, tells the model its iteration (`steps`).
- `validation`, of any class, draws pictures where the options ask for them (`basicsr_panels`), and `feed_data` keeps a
  batch's own negatives (`fed_batches`); `BaseModel.__init__` tries the metrics of a validation (`metrics_rehearsal`).
- `SRModel.get_current_visuals` keeps what a metric needs (`basicsr_metrics`).
- `paired_random_crop` says which pair it cannot crop (`unfit_pairs`).
- `MessageLogger.__call__` sends the layers' numbers when it logs (`message_logger`).
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from torch import Tensor

from clp_basicsr.hosts import (
    basicsr_metrics,
    basicsr_panels,
    fed_batches,
    message_logger,
    metrics_rehearsal,
    missing_names,
    steps,
    unfit_pairs,
)
from clp_basicsr.hosts.holders import HeldLoss
from clp_basicsr.hosts.import_hook import when_imported
from clp_basicsr.hosts.registering import register_own
from clp_basicsr.hosts.serving import serve_models

_REGISTRY_MODULE = "basicsr.utils.registry"
_BASE_MODEL_MODULE = "basicsr.models.base_model"
_METRICS_MODULE = "basicsr.metrics"
_DATASET_MODULE = "clp_basicsr.hosts.basicsr_dataset"


class CLPLoss(HeldLoss):
    """`clp_basicsr.CLPLoss` as BasicSR's models call a perceptual loss: ``(value, style)``."""

    def forward(  # type: ignore[override]
        self, sr: Tensor, target: Tensor, lr: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Return ``(loss, None)``; ``lr`` is read from the model that holds this loss.

        Args:
            sr: ``(N, 3, H, W)``, about [0, 1].
            target: ``(N, 3, H, W)``, values in [0, 1].
            lr: ``(N, 3, h, w)``; None in BasicSR, where nobody passes it.

        Raises:
            TypeError: as `clp_basicsr.CLPLoss.forward`.
            ValueError: as `clp_basicsr.CLPLoss.forward`.
        """
        return super().forward(sr, target, lr), None


def install() -> None:
    """Prepare for BasicSR without importing it; what is imported already is served at once."""
    missing_names.provide()
    when_imported(_BASE_MODEL_MODULE, _attach)
    when_imported("basicsr.data.transforms", unfit_pairs.name_the_file)
    when_imported(_REGISTRY_MODULE, _register)
    when_imported("basicsr.data.paired_image_dataset", _register_dataset)
    when_imported("basicsr.models.sr_model", _attach_to_sr_model)
    when_imported(_METRICS_MODULE, basicsr_metrics.register)
    when_imported("basicsr.utils.logger", message_logger.attach)


def register() -> None:
    """Import BasicSR now and see to it that `CLPLoss` and the metrics are registered; again changes nothing.

    Raises:
        ImportError: if BasicSR is not installed or does not import.
        ValueError: if another loss or metric has taken a name.
    """
    install()
    try:
        base_model = importlib.import_module(_BASE_MODEL_MODULE)
        registry = importlib.import_module(_REGISTRY_MODULE)
    except ModuleNotFoundError as error:
        if error.name == _REGISTRY_MODULE:
            raise ImportError(
                "This BasicSR has no registries: it is older than 1.3, or a fork that is. `type: CLPLoss` cannot be "
                "registered there; build the loss in its code: loss = clp_basicsr.CLPLoss(…); loss(sr, gt, lr)."
            ) from error
        if error.name != "basicsr":
            raise
        raise ImportError(
            "BasicSR is not installed. Install it with: pip install basicsr (Python 3.10 to 3.12; "
            "for 3.13 see the README)."
        ) from error
    _attach(base_model)
    _register(registry)
    basicsr_metrics.register(importlib.import_module(_METRICS_MODULE))


def _register(registry_module: ModuleType) -> None:
    register_own(registry_module.LOSS_REGISTRY, "BasicSR's LOSS_REGISTRY", [CLPLoss])


def _attach(base_model_module: ModuleType) -> None:
    serve_models(base_model_module.BaseModel, [CLPLoss.__name__], _warn)
    steps.attach(base_model_module.BaseModel, steps.of_basicsr)
    basicsr_panels.attach(base_model_module.BaseModel, _warn)
    if _has_registries():
        fed_batches.attach(base_model_module.BaseModel)
        metrics_rehearsal.attach(base_model_module.BaseModel, _warn)


def _register_dataset(_: ModuleType) -> None:
    if _has_registries():
        importlib.import_module(_DATASET_MODULE)
        when_imported(_DATASET_MODULE, _register_own_dataset)  # a worker begins with that module, and is inside it now


def _register_own_dataset(module: ModuleType) -> None:
    registry = importlib.import_module(_REGISTRY_MODULE).DATASET_REGISTRY
    register_own(registry, "BasicSR's DATASET_REGISTRY", [module.PairedNegativeDataset])


def _attach_to_sr_model(sr_model_module: ModuleType) -> None:
    if _has_registries():
        basicsr_metrics.keep_shown(sr_model_module)


def _has_registries() -> bool:
    """Say whether this is a BasicSR of 1.3 or later; forks from before (NAFNet, Restormer) are left as they are."""
    return importlib.util.find_spec(_REGISTRY_MODULE) is not None


def _warn(message: str) -> None:
    from basicsr.utils import get_root_logger

    get_root_logger().warning(message)
