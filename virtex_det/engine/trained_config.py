"""From a config to the one that is trained, so that the run folder and every record hold what happened."""

import logging

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm

from virtex_det.config import with_options
from virtex_det.config.mappers import mapper_name
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)


def as_trained(cfg: CfgNode) -> CfgNode:
    """Return the config for these processes, with a seed and a mapper, and without what this machine cannot do.

    Args:
        cfg: stays as it is. One that was returned from here is returned as it is.

    Raises:
        UserError: the batch cannot be shared by REFERENCE_WORLD_SIZE processes.
    """
    return _with_seed(_without_amp(_with_mapper(_scaled(cfg))))


def _scaled(cfg: CfgNode) -> CfgNode:
    """Scale by Detectron2's rule from REFERENCE_WORLD_SIZE to as many processes as there are."""
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference < 0 or (reference and batch % reference):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {batch} cannot be shared by SOLVER.REFERENCE_WORLD_SIZE {reference} processes.\n"
            "Set the number of processes that the batch is meant for, or 0 to keep it whatever their number."
        )
    return DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())


def _with_mapper(cfg: CfgNode) -> CfgNode:
    return cfg if cfg.DATALOADER.MAPPER else with_options(cfg, ["DATALOADER.MAPPER", mapper_name(cfg)])


def _without_amp(cfg: CfgNode) -> CfgNode:
    """Switch AMP off on CPUs: it has an effect on GPUs only, and a record must not name what had none."""
    if not cfg.SOLVER.AMP.ENABLED or cfg.MODEL.DEVICE != "cpu":
        return cfg
    logger.warning("SOLVER.AMP.ENABLED is set to False: AMP needs a GPU. For bf16 on a CPU set MODEL.BF16 True.")
    return with_options(cfg, ["SOLVER.AMP.ENABLED", "False"])


def _with_seed(cfg: CfgNode) -> CfgNode:
    """Let all processes draw a seed together where there is none, so that the run can be resumed and done again."""
    return cfg if cfg.SEED >= 0 else with_options(cfg, ["SEED", str(comm.shared_random_seed())])
