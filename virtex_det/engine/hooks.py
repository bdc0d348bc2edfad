"""Training hooks that Detectron2 lacks."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.distributed import all_reduce, broadcast

from virtex_det.data.skipped import summarise, together
from virtex_det.engine.metrics_file import MetricsWriter
from virtex_det.engine.numbers import Values, changed_numbers, numbers_of, set_numbers
from virtex_det.engine.progress import Progress
from virtex_det.engine.run_folder import keep_left_out

if TYPE_CHECKING:
    from virtex_det.engine.trainer import Trainer

logger = logging.getLogger(__name__)


class PreciseBN(hooks.PreciseBN):
    """Precise batch norm statistics before each checkpoint and each evaluation.

    Detectron2's hook runs at one period only, so that checkpoints between evaluations hold moving
    averages, and leaves each rank with the statistics of its own images (Detectron2 issues 5398 and
    5409). This one pools the ranks.
    """

    def __init__(
        self,
        periods: tuple[int, ...],
        model: nn.Module,
        data_loader: Iterable,
        num_iter: int,
        numbers: "Numbers",
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            periods: of evaluations and of checkpoints, in iterations.
            model: its batch norm in training mode gets the averages.
            data_loader: endless batches.
            num_iter: number of batches in an average.
            numbers: the hook that collects what the model keeps outside its tensors.
            prepare: called before each computation, to set the seeds of what the model draws.
        """
        super().__init__(0, model, self._watched(data_loader), num_iter)
        self.num_iter = num_iter
        self.progress = Progress("precise batch norm", num_iter)
        self.done = 0
        self.model = model
        self.numbers = numbers
        self.prepare = prepare
        self.periods = tuple(period for period in periods if period > 0)
        self.undone = False

    def before_train(self) -> None:
        """Compute averages that a signal interrupted, and complete the checkpoint."""
        if self.undone:
            trainer = self.trainer
            trainer.iter = trainer.storage.iter = trainer.start_iter - 1
            self.update_stats()
            self.numbers.after_step()
            trainer.checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or any(done % period == 0 for period in self.periods):
            self.update_stats()

    def update_stats(self) -> None:
        """Compute the statistics on each rank and pool them.

        A signal ends this, and training, between two batches.
        """
        self.prepare()
        self.progress, self.done = Progress("precise batch norm", self.num_iter), 0
        model = self.numbers.model
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        numbers = numbers_of(model)
        try:
            super().update_stats()
        except _Interrupted as interrupted:
            for buffer, value in buffers:
                buffer.copy_(value)
            set_numbers(model, numbers)
            self.numbers.after_step()
            self.undone = True
            end_together(self.trainer, interrupted.number, is_saved=False)
        self.undone = False
        pool_bn_statistics(self.model)

    def state_dict(self) -> dict[str, bool]:
        return {"undone": True} if self.undone else {}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        self.undone = state_dict["undone"]

    def _watched(self, batches: Iterable) -> Iterator:
        for batch in batches:
            self.progress.update(self.done)
            if number := signal_to_any(self.trainer):
                raise _Interrupted(number)
            self.done += 1
            yield batch


class _Interrupted(Exception):
    """A signal asked a process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's hook, which also writes a model_final.pth that a kill has just prevented."""

    def before_train(self) -> None:
        super().before_train()
        trainer = self.trainer
        last = Path(self.checkpointer.get_checkpoint_file()).name
        if trainer.start_iter == trainer.max_iter and last != "model_final.pth":
            trainer.iter = trainer.storage.iter = trainer.max_iter - 1
            self.checkpointer.save("model_final", iteration=trainer.iter)


class _AfterCheckpoint(HookBase):
    """A hook that runs after the checkpoint of its step, unless a kill comes between the two.

    For these hooks a resumed run repeats the end of its checkpoint's step; they do only what is
    missing.
    """

    def before_train(self) -> None:
        super().before_train()
        trainer = self.trainer
        if trainer.start_iter > 0:
            trainer.iter = trainer.storage.iter = trainer.start_iter - 1
            self.after_step()

    def is_complete(self) -> bool:
        """Return whether training is complete, not ended by a signal or an error."""
        return self.trainer.iter >= self.trainer.max_iter and not self.trainer.stop.number


class EvalHook(_AfterCheckpoint, hooks.EvalHook):
    """Detectron2's hook, which repeats an evaluation lost by a kill and skips it after an error."""

    def after_train(self) -> None:
        if self.is_complete():
            super().after_train()


class PeriodicWriter(_AfterCheckpoint, hooks.PeriodicWriter):
    """Detectron2's writer; metrics.json continues at the resumed checkpoint."""

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        """Write every ``period`` iterations."""
        super().__init__(list(writers), period)
        self.writers = writers

    def before_train(self) -> None:
        for writer in self.writers:
            if isinstance(writer, MetricsWriter):
                writer.begin(self.trainer.start_iter)
        super().before_train()

    def after_train(self) -> None:
        if self.is_complete():  # else the resumed run writes these lines, over a whole window
            super().after_train()
            return
        for writer in self.writers:
            writer.close()


class Numbers(HookBase):
    """Collects for checkpoints the state that each process's model keeps outside its tensors.

    Attributes:
        of_all: what has changed since the model was built, by process.
    """

    def __init__(self, model: nn.Module) -> None:
        """Note the state of a new model, not wrapped by DDP."""
        self.model = model
        self.built = numbers_of(model)
        self.of_all: list[Values] = []

    def after_step(self) -> None:
        self.of_all = [changed_numbers(self.model, self.built)]
        if self.of_all[0]:  # in all processes or in none
            self.of_all = comm.all_gather(self.of_all[0])

    def state_dict(self) -> dict[str, list[Values]]:
        return {"of_all": self.of_all} if any(self.of_all) else {}

    def load_state_dict(self, state_dict: dict[str, list[Values]]) -> None:
        self.of_all = state_dict["of_all"]
        set_numbers(self.model, self.of_all[comm.get_rank() % len(self.of_all)])


class StopOnSignal(HookBase):
    """Ends training in all processes after the same step when a signal asked any of them to end."""

    def after_step(self) -> None:
        if number := signal_to_any(self.trainer):
            end_together(self.trainer, number)


def signal_to_any(trainer: "Trainer") -> int:
    """Return the signal that asked any process to end, 0 for none; a collective call."""
    return max(comm.all_gather(trainer.stop.number))


def end_together(trainer: "Trainer", number: int, is_saved: bool = True) -> NoReturn:
    """End training in all processes because of a signal to one of them; a collective call.

    Args:
        trainer: of this process.
        number: of the signal.
        is_saved: at the last step: whether its checkpoint is written.
    """
    trainer.stop.number = number
    trainer.cost.add_up()
    try:
        trainer.end(number, is_saved)
    finally:
        # The launcher ends all processes when one has ended, and the main one still saves.
        comm.synchronize()


class BrokenImages(HookBase):
    """Logs and saves at the end of training what the loaders of all processes skipped."""

    def __init__(self, run_folder: str | Path) -> None:
        self.run_folder = run_folder

    def after_train(self) -> None:
        report = self.trainer.data_loader.report()
        # A process that stopped early must not wait for the others.
        reports = comm.gather(report) if self.trainer.iter >= self.trainer.max_iter else [report]
        if summary := summarise(reports):
            logger.warning(summary)
        if comm.is_main_process():
            keep_left_out(self.run_folder, together(reports), goes_on=self.trainer.start_iter > 0)


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give every rank the buffers of the main one, which a checkpoint holds; a collective call.

    Batch norm without synchronisation keeps averages of each rank's own images. With this call all
    ranks evaluate the saved model, and so do those of a resumed run, which load it.
    """
    if comm.get_world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            broadcast(buffer, 0)


@torch.no_grad()
def pool_bn_statistics(model: nn.Module) -> None:
    """Give every rank the statistics of the images of all ranks, as if one process had seen them.

    The variance of the pool is the mean of the variances plus the variance of the means.
    """
    if comm.get_world_size() == 1:
        return
    for module in get_bn_modules(model):
        mean, square = module.running_mean, module.running_var + module.running_mean**2
        moments = torch.stack([mean, square])
        all_reduce(moments)
        mean, square = moments / comm.get_world_size()
        module.running_mean.copy_(mean)
        module.running_var.copy_(square - mean**2)
