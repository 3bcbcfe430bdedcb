"""BasicSR's own Real-ESRGAN models, which make their LR batch themselves and mix pairs through a pool."""

from pathlib import Path

import pytest

from hosts.realesrgan import check_that_pairs_stay_together, on_cpu, realesrgan_options
from hosts.records import Records

__all__ = ["on_cpu"]


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("usm", [True, False])
@pytest.mark.parametrize("model_type", ["RealESRGANModel_basicsr", "RealESRNetModel_basicsr"])
def test_lr_is_the_partner_of_gt_from_the_pool(
    model_type: str, usm: bool, pairs: Path, tmp_path: Path, records: Records
) -> None:
    options = realesrgan_options(pairs, model_type, usm=usm)
    check_that_pairs_stay_together(options, "basicsr", tmp_path, records)
