"""Which model of a host holds a loss: from it the loss reads the LR batch, and through it reports.

Hosts call a perceptual loss with SR and GT only. Each of their models is remembered (weakly) as it
is made; a loss that is called without an LR batch looks for the one that holds it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from clp_basicsr.binding import BoundModule, Host, ask
from clp_basicsr.containers import contents
from clp_basicsr.hosts.import_hook import when_imported
from clp_basicsr.hosts.once import first_time
from clp_basicsr.loss import CLPLoss
from clp_basicsr.messages import warn

_NETWORK = "net_"  # what hosts call their networks: they hold no loss, and walking their hundreds of modules costs time
_models: weakref.WeakSet[Any] = weakref.WeakSet()


class HeldLoss(CLPLoss):
    """`clp_basicsr.CLPLoss` as a host builds it for one of its models."""

    _compared_with_output = False

    def evaluate(self, sr: Tensor, target: Tensor, lr: Tensor | None = None) -> Tensor:
        """As `clp_basicsr.CLPLoss.evaluate`; warn if the first SR is no whole output beside a whole LR batch."""
        if lr is None and self._lr is None and not self._compared_with_output:
            self._check_that_sr_is_whole(sr)
        return super().evaluate(sr, target, lr)

    def _check_that_sr_is_whole(self, sr: Tensor) -> None:
        output = getattr(self.bound_model(), "output", None)
        # One without a graph is of a validation, and says nothing of this step.
        if not isinstance(output, Tensor) or not isinstance(sr, Tensor) or not output.requires_grad:
            return
        self._compared_with_output = True
        if output.shape[-2:] != sr.shape[-2:]:
            whole, given = ("x".join(map(str, images.shape[-2:])) for images in (output, sr))
            warn(
                f"CLPLoss got SR of {given} pixels, but the model's `output` has {whole}. Its negative is the whole "
                "`lq`, resized to SR's size. If SR is a crop, pass its LR: with loss.negatives(lr): …"
            )

    def _may_ask(self) -> bool:
        """Always: a host's loss has no other way to its LR batch."""
        return True


def _name_among_twins(loss: BoundModule) -> str:
    model = loss.bound_model()
    held = held_losses(model) if model in _models else {}
    alike = {id(each): name for name, each in held.items() if each.key == getattr(loss, "key", None)}
    return alike.get(id(loss), "") if len(alike) > 1 else ""


def _holder_of(loss: BoundModule) -> Any | None:
    # Looked up at every call: a model can be given a loss, or lose it, at any time.
    holders = [model for model in _models if any(held is loss for held in held_losses(model).values())]
    if len(holders) > 1:
        names = sorted(type(model).__name__ for model in holders)
        raise ValueError(
            f"CLPLoss is held by {len(holders)} models ({', '.join(names)}) and cannot tell whose LR batch is its "
            "negative and whose iteration counts. Say so once: loss.bind(model)."
        )
    return holders[0] if holders else None


def remembered() -> list[Any]:
    """Return every remembered model that is still alive."""
    return list(_models)


def remember(base_model: Any) -> None:
    """Remember every model whose class is or inherits ``base_model``, from now on; once is enough."""
    if first_time(base_model, "remember"):
        base_model.__init__ = _remembering(base_model.__init__)
    ask(Host(_holder_of, _name_among_twins))
    when_imported("torch._dynamo", _leave_out_of_graphs)  # seconds of import, for those who compile


def _leave_out_of_graphs(dynamo: ModuleType) -> None:
    """Look through models outside of what is traced: they hold the loss that is, which dynamo does not follow."""
    ask(Host(dynamo.disable(_holder_of), dynamo.disable(_name_among_twins)))


def _remembering(original: Any) -> Any:
    @functools.wraps(original)
    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _models.add(self)

    return initialise


def log_entries(model: Any) -> dict[str, Tensor]:
    """Return ``clp_pull``, ``clp_push``, ``clp_active`` of this step; empty where no loss was called.

    What a validation left is forgotten: processes whose numbers are reduced together must all have the same.
    """
    held = held_losses(model)
    entries: dict[str, Tensor] = {}
    for name, criterion in held.items():
        of_training, summary = criterion.summary_is_of_a_training_step, criterion.take_summary()
        if summary is not None and of_training:
            suffix = f"_{name}" if len(held) > 1 else ""
            entries |= {f"clp_{key}{suffix}": value for key, value in summary._asdict().items()}
            if isinstance(criterion.weight, Tensor):
                entries[f"clp_weight{suffix}"] = criterion.weight
    return entries


def held_losses(model: Any) -> dict[str, CLPLoss]:
    """Return the losses a model holds, each once, by attribute: directly, in containers, or in composed losses."""
    found: dict[str, CLPLoss] = {}
    for name, value in vars(model).items():
        if name.startswith(_NETWORK):
            continue
        known = {id(each) for each in found.values()}
        losses = {id(each): each for each in _modules(value) if isinstance(each, CLPLoss) and id(each) not in known}
        found |= {name if len(losses) == 1 else f"{name}_{index}": each for index, each in enumerate(losses.values())}
    return found


def _modules(value: Any) -> Iterator[nn.Module]:
    for each in contents(value):
        if isinstance(each, nn.Module):
            yield from each.modules()
