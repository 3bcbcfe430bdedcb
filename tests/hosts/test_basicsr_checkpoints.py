"""Which checkpoint --auto_resume takes, and what it says about those it does not take."""

import errno
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.utils import check_resume

from clp_basicsr.hosts.checkpoints import DamagedCheckpointError, UntrustedCheckpointError, load_resume_state
from hosts.options import Options, train_options
from hosts.records import log_entries, log_text
from hosts.runs import train

Damage = Callable[[Path], Any]


def cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros_in_the_middle(path: Path) -> None:
    """What a power cut may leave: the right length and the right end. `torch.load` reads it."""
    content = bytearray(path.read_bytes())
    largest = max(torch.load(path, weights_only=True)["params"].values(), key=torch.Tensor.numel)
    start = content.find(largest.numpy().tobytes())
    content[start : start + largest.nbytes] = bytes(largest.nbytes)
    path.write_bytes(content)
    torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def trained(one_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment of a GAN, with checkpoints of iterations 1, 2 and 3."""
    return train(tmp_path_factory.mktemp("trained"), three_iterations(one_pair))


def three_iterations(one_pair: Path) -> Options:
    """Return options with which every batch is the same."""
    options = train_options(one_pair, model_type="SRGANModel", total_iter=3, ema_decay=0.9)
    options["logger"] |= {"save_checkpoint_freq": 1, "use_tb_logger": False}
    options["datasets"]["train"] |= {"dataset_enlarge_ratio": 4, "use_hflip": False, "use_rot": False}
    return options


@pytest.fixture
def experiment(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "experiments" / "tiny"))


def opt_of(experiment: Path, *, auto_resume: bool = True, rank: int = 0, **path: Any) -> dict[str, Any]:
    """As BasicSR's parser leaves the options, as far as a resume looks at them."""
    folders = {name: str(experiment / name) for name in ("models", "training_states")}
    paths = {"pretrain_network_g": None, "resume_state": None, **folders, **path}
    return {"name": "tiny", "auto_resume": auto_resume, "rank": rank, "network_g": {}, "network_d": {}, "path": paths}


def resumed_from(opt: dict[str, Any]) -> int | None:
    state = load_resume_state(opt)
    return None if state is None else int(state["iter"])


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        *((damage, file) for damage in (cut_off, empty) for file in ("training_states/3.state", "models/net_g_3.pth")),
        (cut_off, "models/net_d_3.pth"),
        (zeros_in_the_middle, "models/net_g_3.pth"),
        (Path.unlink, "models/net_g_3.pth"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_skipped_with_a_warning(damage: Damage, file: str, experiment: Path) -> None:
    damage(experiment / file)
    opt = opt_of(experiment)
    with pytest.warns(UserWarning, match="The checkpoint of iteration 3 is skipped: ") as said:
        assert resumed_from(opt) == 2
    assert len(said) == 1
    assert str(experiment / file) in str(said[0].message)
    assert opt["path"]["resume_state"] == str(experiment / "training_states" / "2.state")
    assert opt["path"]["pretrain_network_d"] == str(experiment / "models" / "net_d_2.pth")


def test_cut_off_anywhere(experiment: Path) -> None:
    state = experiment / "training_states" / "3.state"
    content = state.read_bytes()
    for length in range(0, len(content), len(content) // 50):
        state.write_bytes(content[:length])
        with pytest.warns(UserWarning, match="is skipped"):
            assert resumed_from(opt_of(experiment)) == 2


def test_several_damaged_ones_are_all_skipped(experiment: Path) -> None:
    cut_off(experiment / "training_states" / "3.state")
    cut_off(experiment / "models" / "net_d_2.pth")
    with pytest.warns(UserWarning, match="is skipped") as said:
        assert resumed_from(opt_of(experiment)) == 1
    assert len(said) == 2


def test_where_none_is_whole_the_run_starts_anew_and_says_so(experiment: Path) -> None:
    for state in (experiment / "training_states").iterdir():
        cut_off(state)
    with pytest.warns(UserWarning, match="is skipped") as said:
        assert resumed_from(opt_of(experiment)) is None
    assert len(said) == 4
    assert "training starts at iteration 0" in str(said[3].message)


def test_whole_checkpoints_are_taken_without_a_word(experiment: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resumed_from(opt_of(experiment)) == 3


def test_states_are_ordered_by_number(experiment: Path) -> None:
    for part, name in (("training_states", "{}.state"), ("models", "net_g_{}.pth"), ("models", "net_d_{}.pth")):
        shutil.copy(experiment / part / name.format(3), experiment / part / name.format(10))
    opt = opt_of(experiment)
    load_resume_state(opt)
    assert opt["path"]["resume_state"] == str(experiment / "training_states" / "10.state")


def test_networks_that_a_resume_does_not_load_may_be_damaged(experiment: Path) -> None:
    """`ignore_resume_networks` keeps what `pretrain_network_d` says, as in BasicSR."""
    cut_off(experiment / "models" / "net_d_3.pth")
    opt = opt_of(experiment, ignore_resume_networks=["network_d"], pretrain_network_d="mine.pth")
    assert resumed_from(opt) == 3
    assert opt["path"]["pretrain_network_d"] == "mine.pth"


def test_a_network_that_the_model_never_saves_is_not_missed(experiment: Path) -> None:
    assert resumed_from({**opt_of(experiment), "network_teacher": {}}) == 3


def test_a_network_of_which_only_the_latest_is_left_is_missed(experiment: Path) -> None:
    for iteration in (1, 2, 3):
        (experiment / "models" / f"net_d_{iteration}.pth").unlink()
    state = experiment / "training_states" / "3.state"
    with pytest.raises(DamagedCheckpointError, match=r"net_d_3\.pth' is missing"):
        load_resume_state(opt_of(experiment, auto_resume=False, resume_state=str(state)))


def test_nor_one_whose_name_begins_that_of_another(experiment: Path) -> None:
    shutil.copy(experiment / "models" / "net_d_3.pth", experiment / "models" / "net_e_local_3.pth")
    assert resumed_from({**opt_of(experiment), "network_e": {}, "network_e_local": {}}) == 3


@pytest.mark.parametrize("auto_resume", [False, True])
def test_a_whole_state_that_torch_does_not_trust_is_not_skipped(
    auto_resume: bool, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is not begun anew; torch's own variable lets it go on, as with BasicSR alone."""
    path = experiment / "training_states" / "3.state"
    torch.save({**torch.load(path, weights_only=True), "numpy": np.random.RandomState(0).get_state()}, path)
    opt = opt_of(experiment, auto_resume=auto_resume, resume_state=None if auto_resume else str(path))
    with pytest.raises(
        UntrustedCheckpointError, match=r"3\.state' is whole, but .* TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
    ):
        load_resume_state(opt)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert resumed_from(opt) == 3


@pytest.mark.parametrize("auto_resume", [False, True])
def test_paths_are_those_of_check_resume(auto_resume: bool, experiment: Path) -> None:
    given = {"pretrain_network_g": "pretrained.pth", "param_key_g": "params_ema"}
    state = str(experiment / "training_states" / "3.state")
    opt, expected = (opt_of(experiment, auto_resume=auto_resume, resume_state=state, **given) for _ in range(2))
    load_resume_state(opt)
    check_resume(expected, 3)
    assert opt == expected
    assert opt["path"]["param_key_g"] == "params"


@pytest.mark.parametrize("file", ["training_states/3.state", "models/net_g_3.pth"])
def test_a_damaged_checkpoint_that_was_asked_for_is_an_error(file: str, experiment: Path) -> None:
    cut_off(experiment / file)
    state = experiment / "training_states" / "3.state"
    with pytest.raises(DamagedCheckpointError, match=r"`path: resume_state` must be .* --auto_resume") as raised:
        load_resume_state(opt_of(experiment, auto_resume=False, resume_state=str(state)))
    assert str(experiment / file) in str(raised.value)


def test_the_folder_of_the_states_is_no_state(experiment: Path) -> None:
    with pytest.raises(DamagedCheckpointError, match=r"/training_states' is a folder"):
        load_resume_state(opt_of(experiment, auto_resume=False, resume_state=str(experiment / "training_states")))


def test_what_says_nothing_of_a_checkpoint_does_not_skip_it(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        load_resume_state(opt_of(experiment))


def test_a_network_that_was_asked_for_as_a_state(experiment: Path) -> None:
    network = experiment / "models" / "net_g_3.pth"
    with pytest.raises(DamagedCheckpointError, match=r"net_g_3\.pth' is no training state"):
        load_resume_state(opt_of(experiment, auto_resume=False, resume_state=str(network)))


def test_a_state_of_a_run_of_another_name(experiment: Path) -> None:
    """BasicSR looks for its networks below the name of the option file."""
    state = experiment / "training_states" / "3.state"
    opt = opt_of(experiment, auto_resume=False, resume_state=str(state), models=str(experiment.parent / "new/models"))
    with pytest.raises(DamagedCheckpointError, match=r"no networks of iteration 3 in '.*new/models'.* name 'tiny'"):
        load_resume_state(opt)


def test_a_state_that_was_asked_for_and_is_not_there(experiment: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"9\.state"):
        load_resume_state(opt_of(experiment, auto_resume=False, resume_state=str(experiment / "9.state")))


@pytest.mark.parametrize("rank", [0, 1])
def test_what_a_killed_run_left_is_ignored_and_removed_by_the_process_that_writes(rank: int, experiment: Path) -> None:
    leftovers = [experiment / "training_states" / "4.state.unfinished", experiment / "models/net_g_4.pth.unfinished"]
    for path in leftovers:
        path.write_bytes(b"half")
    assert resumed_from(opt_of(experiment, rank=rank)) == 3
    assert [path.exists() for path in leftovers] == [rank != 0] * 2


def test_the_pipeline_goes_on_from_the_one_before(
    trained: Path, experiment: Path, one_pair: Path, tmp_path: Path
) -> None:
    """Its weights must end as those of the run that nobody disturbed, to the last bit."""
    cut_off(experiment / "training_states" / "3.state")
    with pytest.warns(UserWarning, match="is skipped"):
        train(tmp_path, three_iterations(one_pair), "--auto_resume")
    assert "Start training from epoch: 0, iter: 2" in log_text(experiment)
    assert set(log_entries(experiment)) == {3}
    for name in ("models/net_g_latest.pth", "models/net_d_3.pth", "training_states/3.state"):
        ends, should_end = (torch.load(each / name, weights_only=True) for each in (experiment, trained))
        for part in should_end.keys() - {"epoch"}:
            torch.testing.assert_close(ends[part], should_end[part], rtol=0, atol=0)
