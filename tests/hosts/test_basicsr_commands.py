"""Command lines as people type them, in processes of their own."""

import zipapp
from pathlib import Path

import pytest

from hosts.options import evaluation_options, train_options, write
from hosts.records import CLP_KEYS, log_entries, log_text, scalars
from hosts.runs import python, succeeded, train

# Somebody's training script: the import of clp_basicsr is the one line that is not BasicSR's own way.
USER_TRAIN_PY = """
import os
import clp_basicsr
from basicsr.models.sr_model import SRModel
from basicsr.train import train_pipeline
from basicsr.utils.registry import MODEL_REGISTRY

@MODEL_REGISTRY.register()
class ThirdPartyModel(SRModel):
    def optimize_parameters(self, current_iter):
        self.optimizer_g.zero_grad()
        self.output = self.net_g(self.lq)
        percep, style = self.cri_perceptual(self.output, self.gt)
        assert style is None
        (3 * percep).backward()
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict({"l_third_party": 3 * percep})

if __name__ == "__main__":
    train_pipeline(os.getcwd())
"""


def test_own_train_py_with_a_third_party_model(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(USER_TRAIN_PY, encoding="utf-8")
    file = write(train_options(pairs, model_type="ThirdPartyModel", total_iter=4), tmp_path)
    succeeded(python("train.py", "-opt", str(file), folder=tmp_path))

    experiment = tmp_path / "experiments" / "tiny"
    entries = log_entries(experiment)
    assert set(entries) == {1, 2, 3, 4}
    assert all(set(values) == {"l_third_party", *CLP_KEYS} for values in entries.values())
    assert all(values["l_third_party"] > 0 for values in entries.values())
    assert "losses/l_third_party" in scalars(experiment)[4]
    assert "Model [ThirdPartyModel] is created" in log_text(experiment)


def test_test_command(pairs: Path, tmp_path: Path) -> None:
    experiment = train(tmp_path, train_options(pairs, total_iter=1))
    file = write(evaluation_options(pairs, experiment / "models" / "net_g_latest.pth"), tmp_path, "test.yml")
    succeeded(python("-m", "clp_basicsr.test", "-opt", str(file), folder=tmp_path))

    results = tmp_path / "results" / "tiny_test"
    assert "Validation photos\n\t # psnr: " in log_text(results)
    images = sorted(path.name for path in (results / "visualization" / "photos").iterdir())
    assert images == [f"{name}_tiny_test.png" for name in ("astronaut", "chelsea", "coffee", "rocket")]


@pytest.mark.slow
def test_workers_where_pip_started_the_command_from_a_zip_file(pairs: Path, tmp_path: Path) -> None:
    """As on Windows: pip's .exe is one, and processes are spawned; the main module is not imported again there."""
    main = tmp_path / "clp-basicsr" / "__main__.py"
    main.parent.mkdir()
    main.write_text(
        "if __name__ == '__main__':\n"
        "    import multiprocessing\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    from clp_basicsr.cli import main\n"
        "    raise SystemExit(main())\n"
    )
    zipapp.create_archive(main.parent, tmp_path / "clp-basicsr.pyz")
    options = train_options(pairs, total_iter=1)
    options["datasets"]["train"]["num_worker_per_gpu"] = 1
    file = write(options, tmp_path)
    succeeded(python("clp-basicsr.pyz", "train", "-opt", str(file), folder=tmp_path))
    assert set(log_entries(tmp_path / "experiments/tiny")) == {1}
