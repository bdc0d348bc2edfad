"""The config that is really trained, which the run folder and every record hold."""

import logging

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm

from virtex_det.config import with_options
from virtex_det.config.mappers import mapper_name
from virtex_det.config.precision import scales_losses
from virtex_det.data.following import follow_data
from virtex_det.data.vocabulary import with_vocabulary_size
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)


def as_trained(cfg: CfgNode) -> CfgNode:
    """Return the config with seed, mapper, and sizes of vocabulary and data, for these processes.

    Mixed precision gets a data type that this machine can train in.

    Args:
        cfg: stays unchanged. A config that this function returned is returned unchanged.

    Raises:
        UserError: REFERENCE_WORLD_SIZE does not divide the batch, or the tokenizer cannot be read
            or has another size than the config says; or as ``follow_data``.
    """
    scaled = on_this_machine(_with_mapper(_scaled(cfg)))
    return _with_seed(follow_data(with_vocabulary_size(scaled)))


def _scaled(cfg: CfgNode) -> CfgNode:
    """Scale by Detectron2's rule from REFERENCE_WORLD_SIZE to the number of processes."""
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference < 0 or (reference and batch % reference):
        raise UserError(
            f"SOLVER.REFERENCE_WORLD_SIZE {reference} does not divide SOLVER.IMS_PER_BATCH "
            f"{batch}.\nSet it to the number of processes that the batch is meant for, or to 0 to "
            "keep the batch for any number of processes."
        )
    return DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())


def _with_mapper(cfg: CfgNode) -> CfgNode:
    if cfg.DATALOADER.MAPPER:
        return cfg
    return with_options(cfg, ["DATALOADER.MAPPER", mapper_name(cfg)])


def on_this_machine(cfg: CfgNode) -> CfgNode:
    """Return the config with bfloat16 instead of float16, whose losses only CUDA GPUs scale."""
    if not scales_losses(cfg) or cfg.MODEL.DEVICE.startswith("cuda"):
        return cfg
    logger.info("SOLVER.AMP.DTYPE is set to bfloat16: training in float16 needs a CUDA GPU")
    return with_options(cfg, ["SOLVER.AMP.DTYPE", "bfloat16"])


def _with_seed(cfg: CfgNode) -> CfgNode:
    """Draw a seed, the same in all processes, if there is none: a run can be resumed by it."""
    return cfg if cfg.SEED >= 0 else with_options(cfg, ["SEED", str(comm.shared_random_seed())])
