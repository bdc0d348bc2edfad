"""Training hooks that Detectron2 lacks."""

import logging

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.distributed import all_reduce

from virtex_det.data.left_out import summarise

logger = logging.getLogger(__name__)


class PreciseBN(hooks.PreciseBN):
    """True averages for batch norm before everything that is kept: each checkpoint and each evaluation.

    Detectron2's hook runs at one period only, so that checkpoints between evaluations hold moving averages, and leaves
    each rank with the statistics of its own images (Detectron2 issues 5398 and 5409). Here the ranks are pooled.
    """

    def __init__(self, periods: tuple[int, ...], model: nn.Module, data_loader: object, num_iter: int) -> None:
        super().__init__(0, model, data_loader, num_iter)
        self.model = model
        self.periods = tuple(period for period in periods if period > 0)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or any(done % period == 0 for period in self.periods):
            self.update_stats()

    def update_stats(self) -> None:
        """Compute the statistics on each rank and pool them."""
        super().update_stats()
        pool_bn_statistics(self.model)


class BrokenImages(HookBase):
    """Logs at the end of training what its loader left out, of all processes."""

    def after_train(self) -> None:
        report = self.trainer.data_loader.report()
        # A process that stopped early must not wait for the others.
        reports = comm.gather(report) if self.trainer.iter >= self.trainer.max_iter else [report]
        if summary := summarise(reports):
            logger.warning(summary)


@torch.no_grad()
def pool_bn_statistics(model: nn.Module) -> None:
    """Give every rank the statistics of all ranks' images together, as if one process had seen them.

    The variance of a pool is the mean of the variances plus the variance of the means.
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
