"""Two torchruns, each in a working directory of its own, as on two machines without a shared folder."""

import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from hosts.options import joint_options, write
from hosts.records import CLP_KEYS, log_entries, log_text
from hosts.runs import python, succeeded

Machines = list[Path]


@pytest.fixture(scope="module")
def trained(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Machines:
    """Two iterations; the working directories of node 0 and node 1."""
    machines = [tmp_path_factory.mktemp(f"node_{rank}") for rank in range(2)]
    for run in _launch(machines, crops, total_iter=2):
        succeeded(run)
    return machines


def _launch(machines: Machines, crops: Path, total_iter: int, *flags: str) -> list[CompletedProcess[str]]:
    """Start the README's command on all machines at once."""
    port = _free_port()

    def launch(rank: int) -> CompletedProcess[str]:
        file = write(joint_options(crops, 2, total_iter=total_iter), machines[rank])
        nodes = (f"--nnodes={len(machines)}", f"--node_rank={rank}", "--master_addr=localhost", f"--master_port={port}")
        command = ("-m", "clp_basicsr.train", "-opt", str(file), "--launcher", "pytorch", *flags)
        return python("-m", "torch.distributed.run", *nodes, "--nproc_per_node=1", *command, folder=machines[rank])

    with ThreadPoolExecutor() as threads:
        return list(threads.map(launch, range(len(machines))))


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        port: int = listening.getsockname()[1]
        return port


def test_two_machines_train_together_and_the_first_writes(trained: Machines) -> None:
    experiment = trained[0] / "experiments" / "tiny"
    assert "World size (gpu number): 2" in log_text(experiment)
    entries = log_entries(experiment)
    assert set(entries) == {1, 2}
    assert all(set(values) == {"l_pix", "l_percep", *CLP_KEYS} for values in entries.values())
    assert (experiment / "models" / "net_g_latest.pth").is_file()
    assert [path.name for path in trained[1].iterdir()] == ["options.yml"]


@pytest.mark.slow
def test_resume_where_one_machine_has_no_state(trained: Machines, crops: Path, tmp_path: Path) -> None:
    """It would train on with weights of its own, and hang when the other machine is done."""
    machines = [Path(shutil.copytree(machine, tmp_path / machine.name)) for machine in trained]
    for run in _launch(machines, crops, 4, "--auto_resume"):
        assert run.returncode != 0
        assert "RuntimeError: All processes must resume from the same training state, but rank 0 on" in run.stderr
        assert "found that of iteration 2, rank 1 on" in run.stderr
        assert "found none. Give every machine the experiment's folder" in run.stderr
    assert not list(machines[0].glob("experiments/tiny/models/net_g_3.pth"))
