"""A progress bar for BasicSR's training loop, and a Ctrl-C that leaves a state to resume from."""

from __future__ import annotations

import functools
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from tqdm import tqdm

from clp_basicsr.hosts.replacing import replaced


class _Watch:
    """Follows one run from the moment its model is built."""

    def __init__(self, iterations: int, done: int) -> None:
        self.process = os.getpid()
        self.iterations = iterations
        self.done = done
        self.bar: tqdm[Any] | None = None
        self.sampler: Any = None
        self.model: Any = None
        self.iteration = done
        self.interrupted = False

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return  # a data loader's worker: it ends with us
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        tqdm.write("Stopping after this iteration and saving its state (Ctrl-C again: stop at once) …")

    def after_iteration(self, model: Any, iteration: int) -> None:
        self.model, self.iteration = model, iteration
        if self.bar is None:
            self.bar = tqdm(total=self.iterations, initial=self.done, desc="training", unit="it", dynamic_ncols=True)
        self.bar.update(iteration - self.bar.n)
        shown = {
            key: f"{model.log_dict[key]:.3g}" for key in ("l_pix", "clp_pull", "clp_push") if key in model.log_dict
        }
        self.bar.set_postfix(shown, refresh=False)
        if self.interrupted or iteration == self.iterations:
            model.save(self.sampler.epoch, iteration)
        if self.interrupted:
            raise KeyboardInterrupt

    @contextmanager
    def workers(self) -> Iterator[None]:
        """End as after Ctrl-C where that has ended a worker, as it does to one that is only starting."""
        try:
            yield
        except RuntimeError as error:
            if not self.interrupted or "DataLoader worker" not in str(error):
                raise
            if self.model is not None:
                self.model.save(self.sampler.epoch, self.iteration)
            raise KeyboardInterrupt from error

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


@contextmanager
def watched(pipeline: ModuleType, iterations: int, done: int, tensorboard: Path) -> Iterator[None]:
    """Show progress while `pipeline` (``basicsr.train``) runs inside the ``with`` block.

    Args:
        pipeline: the module whose names the training loop looks up.
        iterations: where the bar ends.
        done: where it starts.
        tensorboard: folder for the TensorBoard log, beside the run's other files.
    """
    watch = _Watch(iterations, done)
    with ExitStack() as stack:
        stack.callback(watch.close)
        previous = signal.signal(signal.SIGINT, watch.interrupt)
        stack.callback(signal.signal, signal.SIGINT, previous)
        for name, substitute in (
            ("build_model", _watched_model(pipeline.build_model, watch)),
            ("create_train_val_dataloader", _watched_loaders(pipeline.create_train_val_dataloader, watch)),
            ("CPUPrefetcher", _watched_workers(pipeline.CPUPrefetcher, watch)),
            ("get_root_logger", _quiet_logger(pipeline.get_root_logger)),
            ("init_tb_logger", _tensorboard_at(pipeline.init_tb_logger, tensorboard)),
            ("mkdir_and_rename", lambda path: None),  # would make BasicSR's own folder for that log
        ):
            stack.enter_context(replaced(pipeline, name, substitute))
        yield


def _watched_model(build_model: Any, watch: _Watch) -> Any:
    def build(opt: dict[str, Any]) -> Any:
        model = build_model(opt)
        optimize = model.optimize_parameters

        def optimize_and_report(current_iter: int) -> None:
            optimize(current_iter)
            watch.after_iteration(model, current_iter)

        model.optimize_parameters = optimize_and_report
        return model

    return build


def _watched_loaders(create: Any, watch: _Watch) -> Any:
    def create_train_val_dataloader(opt: dict[str, Any], logger: logging.Logger) -> Any:
        loaders = create(opt, logger)
        watch.sampler = loaders[1]
        return loaders

    return create_train_val_dataloader


def _watched_workers(prefetcher: Any, watch: _Watch) -> Any:
    class Watched(prefetcher):  # type: ignore[misc]
        def __init__(self, loader: Any) -> None:
            with watch.workers():
                super().__init__(loader)

        def next(self) -> Any:
            with watch.workers():
                return super().next()

        def reset(self) -> None:
            with watch.workers():
                super().reset()

    return Watched


def _tensorboard_at(init_tb_logger: Any, folder: Path) -> Any:
    def init(log_dir: str) -> Any:
        return init_tb_logger(log_dir=str(folder))

    return init


def _quiet_logger(get_root_logger: Any) -> Any:
    """Keep the log file whole, and the terminal to warnings and the progress bar."""

    @functools.wraps(get_root_logger)
    def get(*args: Any, **kwargs: Any) -> logging.Logger:
        logger: logging.Logger = get_root_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.WARNING)
        return logger

    return get
