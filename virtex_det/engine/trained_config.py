"""The config that is really trained, as the run folder and every record have it."""

import logging

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm

from virtex_det.config import with_options
from virtex_det.config.mappers import mapper_name
from virtex_det.config.precision import scales_losses
from virtex_det.data.vocabulary import with_vocabulary_size
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)


def as_trained(cfg: CfgNode) -> CfgNode:
    """Return the config for these processes: with a seed, a mapper, the tokenizer's size, a precision of this machine.

    Args:
        cfg: stays as it is. One that was returned from here is returned as it is.

    Raises:
        UserError: the batch cannot be shared by REFERENCE_WORLD_SIZE processes, or the tokenizer cannot be read or has
            another size than the config says.
    """
    return _with_seed(with_vocabulary_size(on_this_machine(_with_mapper(_scaled(cfg)))))


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
    return (
        cfg if cfg.DATALOADER.MAPPER else with_options(cfg, ["DATALOADER.MAPPER", mapper_name(cfg)])
    )


def on_this_machine(cfg: CfgNode) -> CfgNode:
    """Return the config with bfloat16 if float16 cannot train: Detectron2 scales losses on CUDA only."""
    if not scales_losses(cfg) or cfg.MODEL.DEVICE.startswith("cuda"):
        return cfg
    logger.info("SOLVER.AMP.DTYPE is set to bfloat16: training in float16 needs a CUDA GPU")
    return with_options(cfg, ["SOLVER.AMP.DTYPE", "bfloat16"])


def _with_seed(cfg: CfgNode) -> CfgNode:
    """Draw a common seed if there is none, so that the run can be resumed and repeated."""
    return cfg if cfg.SEED >= 0 else with_options(cfg, ["SEED", str(comm.shared_random_seed())])
