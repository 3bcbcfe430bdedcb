"""Running BasicSR's own, unmodified `train_pipeline` and `test_pipeline` from the working directory.

While a pipeline runs, a few of BasicSR's names stand for something else: where BasicSR 1.4.2 takes a GPU
for granted (`load_resume_state`, the process group of `--launcher pytorch`, the wrapping in DDP, the
validation of video models), where it saves and resumes as if no run were ever killed and no disk full, and
where it makes the data loaders and does not look at them.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed

from clp_basicsr.disk import named_if_the_disk_is_full
from clp_basicsr.hosts import without_gpu
from clp_basicsr.hosts.basicsr import register
from clp_basicsr.hosts.checkpoints import load_resume_state, named_if_a_network_was_never_saved
from clp_basicsr.hosts.data_loaders import checked
from clp_basicsr.hosts.extensions import import_extensions, split_imports
from clp_basicsr.hosts.images_anywhere import WritingAnywhere
from clp_basicsr.hosts.options.checks import check_options
from clp_basicsr.hosts.options.encoding import open_text
from clp_basicsr.hosts.options.file import read_option_file
from clp_basicsr.hosts.options.flags import read_flags
from clp_basicsr.hosts.options.forced import with_forced
from clp_basicsr.hosts.ranks import alike_on_all_ranks
from clp_basicsr.hosts.replacing import replaced
from clp_basicsr.hosts.saving import Saving
from clp_basicsr.hosts.without_gpu import named_if_it_needs_a_gpu


def train(arguments: Sequence[str]) -> None:
    """Train as ``python basicsr/train.py ARGUMENTS`` does, but below the working directory.

    Args:
        arguments: BasicSR's own flags, ``-opt FILE`` first among them; and ``--import PACKAGE``, as often as
            needed, for packages that register something of their own with BasicSR.

    Raises:
        FileNotFoundError: if the option file does not exist.
        ImportError: if BasicSR or a package to import is not installed or does not import.
        OptionFileError: if the option file, ``--force_yml`` included, is one with which BasicSR cannot run.
        NoGPUError: if something in the run calls CUDA by name and there is no GPU.
        DamagedCheckpointError: if ``path: resume_state`` asks for a checkpoint that is not whole.
        UntrustedCheckpointError: if the checkpoint to go on from holds more than torch reads unasked.
        NotSavedError: if a checkpoint cannot be written, or the disk is full; the earlier ones are left.
        RuntimeError: if the processes of a distributed run would resume from different states.
    """
    _run("train", arguments)


def test(arguments: Sequence[str]) -> None:
    """Test as ``python basicsr/test.py ARGUMENTS`` does, but below the working directory.

    Args:
        arguments: BasicSR's own flags, ``-opt FILE`` first among them; and ``--import PACKAGE``, as often as
            needed, for packages that register something of their own with BasicSR.

    Raises:
        FileNotFoundError: if the option file does not exist.
        ImportError: if BasicSR or a package to import is not installed or does not import.
        OptionFileError: if the option file, ``--force_yml`` included, is one with which BasicSR cannot run.
        NoGPUError: if something in the run calls CUDA by name and there is no GPU.
    """
    _run("test", arguments)


def _run(command: str, arguments: Sequence[str]) -> None:
    extensions, arguments = split_imports(arguments, command)
    flags = read_flags(arguments, command)
    arguments = _with_launcher(arguments, flags)
    option_file = None if flags.opt is None else _existing(Path(flags.opt))
    register()
    import_extensions(extensions)
    module_name = f"basicsr.{command}"
    module = importlib.import_module(module_name)
    if option_file is not None:
        options = with_forced(option_file, read_option_file(option_file), flags.force_yml)
        check_options(option_file, options, flags, training=command == "train")
    with ExitStack() as stack:
        # BasicSR writes the command line into its copy of the option file.
        imports = "".join(f" --import {name}" for name in extensions)
        stack.enter_context(_command_line(f"{module_name} (by clp_basicsr{imports})", arguments))
        stack.enter_context(_found_by_workers())
        stack.enter_context(named_if_it_needs_a_gpu())
        stack.enter_context(named_if_the_disk_is_full())
        stack.enter_context(named_if_a_network_was_never_saved())
        for owner, name, substitute in _substitutes(module):
            stack.enter_context(replaced(owner, name, substitute))
        getattr(module, f"{command}_pipeline")(os.getcwd())
    # Not after an error: nccl would wait here for processes that wait for this one, instead of letting
    # it end, at which torchrun ends them all.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # BasicSR's models hold themselves in cycles; a DDP wrapper that outlives the group keeps
        # gloo's threads until the interpreter's end, which may abort.
        gc.collect()
        torch.distributed.destroy_process_group()


def _with_launcher(arguments: list[str], flags: Namespace) -> list[str]:
    """Add ``--launcher pytorch`` under torchrun: without it every process would train alone."""
    if "TORCHELASTIC_RUN_ID" in os.environ and flags.launcher is None:
        return [*arguments, "--launcher", "pytorch"]
    return arguments


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(
            f"Flag `-opt` must name a YAML file, but there is none at '{path}' (from '{Path.cwd()}')."
        )
    return path


@contextmanager
def _command_line(program: str, arguments: Sequence[str]) -> Iterator[None]:
    """BasicSR parses `sys.argv` itself."""
    with replaced(sys, "argv", [program, *arguments]):
        yield


@contextmanager
def _found_by_workers() -> Iterator[None]:
    """Let the data loader's workers import this package first, also where pip's .exe started this process (Windows).

    That is a zip file with a ``__main__``, which multiprocessing does not import again in a new process, and a notebook
    or ``python -c`` has none. Without the import hook BasicSR's data sets, sent to the worker, are not found there.
    """
    main_module = sys.modules["__main__"]
    spec = main_module.__spec__
    is_lost = spec.name == "__main__" if spec is not None else not hasattr(main_module, "__file__")
    spec = importlib.util.find_spec("clp_basicsr.train") if is_lost else spec
    with replaced(main_module, "__spec__", spec):
        yield


def _substitutes(pipeline_module: ModuleType) -> list[tuple[Any, str, Any]]:
    from basicsr.models.base_model import BaseModel
    from basicsr.utils import img_util, options

    substitutes: list[tuple[Any, str, Any]] = [
        (options, "open", open_text),
        (img_util, "cv2", WritingAnywhere(img_util.cv2)),
    ]
    if hasattr(pipeline_module, "create_train_val_dataloader"):
        create = pipeline_module.create_train_val_dataloader
        substitutes.append((pipeline_module, "create_train_val_dataloader", checked(create)))
    if hasattr(pipeline_module, "load_resume_state"):
        saving = Saving()
        substitutes.append((pipeline_module, "load_resume_state", alike_on_all_ranks(load_resume_state)))
        substitutes.append((torch, "save", saving.save))
        for name in ("save_network", "save_training_state"):
            substitutes.append((BaseModel, name, saving.never_ignored(getattr(BaseModel, name))))
    if not torch.cuda.is_available():
        substitutes += without_gpu.substitutes()
    return substitutes
