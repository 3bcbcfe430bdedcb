"""Models and a network as other people write them for BasicSR: on top of its own, or from scratch."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.base_model import BaseModel
from basicsr.models.esrgan_model import ESRGANModel
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
from torch import Tensor, nn


@MODEL_REGISTRY.register()
class ThirdPartyMixing(ESRGANModel):  # type: ignore[misc]
    """Its own ``feed_data``: mixes the pairs of a batch."""

    def feed_data(self, data: dict[str, Tensor]) -> None:
        mixed = {name: 0.7 * data[name] + 0.3 * data[name].flip(0) for name in ("lq", "gt")}
        super().feed_data(mixed)


@MODEL_REGISTRY.register()
class ThirdPartyAccumulating(SRModel):  # type: ignore[misc]
    """Its own ``optimize_parameters``: accumulates gradients over the images of a batch."""

    def optimize_parameters(self, current_iter: int) -> None:
        self.optimizer_g.zero_grad()
        loss_dict = OrderedDict()
        for pair in zip(self.lq.split(1), self.gt.split(1)):
            self.lq, self.gt = pair
            self.output = self.net_g(self.lq)
            loss_dict["l_pix"] = self.cri_pix(self.output, self.gt)
            loss_dict["l_percep"], _ = self.cri_perceptual(self.output, self.gt)
            (loss_dict["l_pix"] + loss_dict["l_percep"]).backward()
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict(loss_dict)


@MODEL_REGISTRY.register()
class ThirdPartyLoop(BaseModel):  # type: ignore[misc]
    """Everything its own, on BasicSR's bare base: no ``output``, no ``gt``, and LR by the name in ``lq_name``."""

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.network = self.model_to_device(build_network(opt["network_g"]))
        self.terms = [build_loss(opt["train"]["perceptual_opt"])]
        options = {key: value for key, value in opt["train"]["optim_g"].items() if key != "type"}
        self.optimizers.append(self.get_optimizer("Adam", self.network.parameters(), **options))
        self.setup_schedulers()

    def feed_data(self, data: dict[str, Tensor]) -> None:
        self.low_quality, self.truth = data["lq"].to(self.device), data["gt"].to(self.device)
        setattr(self, self.opt.get("lq_name", "lq"), self.low_quality)

    def optimize_parameters(self, current_iter: int) -> None:
        self.optimizers[0].zero_grad()
        total, _ = self.terms[0](self.network(self.low_quality), self.truth)
        total.backward()
        self.optimizers[0].step()
        self.log_dict = self.reduce_loss_dict({"l_percep": total})

    def save(self, epoch: int, current_iter: int) -> None:
        self.save_network(self.network, "net_g", current_iter)


@ARCH_REGISTRY.register()
class ThirdPartyRecurrentNet(nn.Module):
    """Clips ``(N, T, 3, h, w)`` to clips four times as large, each frame with the one before it, as BasicVSR's."""

    def __init__(self) -> None:
        super().__init__()
        self.spynet = nn.Conv2d(6, 2, 3, padding=1)  # models treat what has this name as the flow network
        self.last = nn.Conv2d(8, 48, 3, padding=1)

    def forward(self, clips: Tensor) -> Tensor:
        pairs = torch.cat([clips, clips.roll(1, 1)], dim=2).flatten(0, 1)
        frames = F.pixel_shuffle(self.last(torch.cat([pairs, self.spynet(pairs)], dim=1)), 4)
        return frames.unflatten(0, clips.shape[:2])


@ARCH_REGISTRY.register()
class ThirdPartyGenerator(nn.Module):
    """Images out of noise, called as StyleGAN2's generator; that one needs operators built for a GPU."""

    def __init__(self, num_style_feat: int) -> None:
        super().__init__()
        self.last = nn.Linear(num_style_feat, 3 * 16 * 16)

    def forward(self, styles: list[Tensor]) -> tuple[Tensor, None]:
        return self.last(styles[0]).unflatten(1, (3, 16, 16)), None


@ARCH_REGISTRY.register()
class ThirdPartyDiscriminator(nn.Module):
    """One number for images ``(N, 3, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 1)

    def forward(self, images: Tensor) -> Tensor:
        score: Tensor = self.last(images.mean((2, 3)))
        return score
