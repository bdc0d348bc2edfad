"""Caption-pretrained ResNets in Detectron2: pretrain, load, fine-tune, evaluate.

Importing the package registers its backbones, models and datasets with Detectron2. It takes in none of the text stack:
that comes with the ``[pretrain]`` extra, at the moment a pretraining config asks for it.
"""

from virtex_det.foreign_warnings import silence_foreign_warnings
from virtex_det.missing_packages import explain_missing

silence_foreign_warnings()  # before Detectron2 is imported, which brings most of them

try:
    import detectron2  # noqa: F401

    import virtex_det.data
    import virtex_det.model_zoo
    import virtex_det.modeling  # noqa: F401  (each registers what it defines)
    from virtex_det.config import add_virtex_det_config, get_cfg
except ModuleNotFoundError as error:
    raise explain_missing(error) from error

__version__ = "0.1.0"
__all__ = ["add_virtex_det_config", "get_cfg"]
