"""Caption-pretrained ResNets in Detectron2: pretrain, load, fine-tune, evaluate.

Importing the package registers its backbones, models and datasets with Detectron2. The text stack
(extra ``[pretrain]``) is imported only for a pretraining config, and the classes for trained models
on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from virtex_det.foreign_warnings import silence_foreign_warnings
from virtex_det.missing_packages import explain_missing

silence_foreign_warnings()  # before Detectron2 is imported, which brings most of them

try:
    import detectron2  # noqa: F401

    import virtex_det.data
    import virtex_det.model_zoo
    import virtex_det.modeling  # noqa: F401  (each registers what it defines)
    from virtex_det.config import (
        Role,
        add_virtex_det_config,
        get_cfg,
        load_config,
        register_config,
    )
    from virtex_det.plugins import import_plugin
except ModuleNotFoundError as error:
    raise explain_missing(error) from error

if TYPE_CHECKING:
    from virtex_det.checkpoint import load_weights
    from virtex_det.evaluation import evaluate
    from virtex_det.inference import Captioner, Detector
    from virtex_det.model_zoo.backbone import load_backbone

__version__ = "0.1.0"
__all__ = [
    "Captioner",
    "Detector",
    "Role",
    "add_virtex_det_config",
    "evaluate",
    "get_cfg",
    "import_plugin",
    "load_backbone",
    "load_config",
    "load_weights",
    "register_config",
]

_ON_FIRST_USE = {
    "Captioner": "virtex_det.inference",
    "Detector": "virtex_det.inference",
    "evaluate": "virtex_det.evaluation",
    "load_backbone": "virtex_det.model_zoo.backbone",
    "load_weights": "virtex_det.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_ON_FIRST_USE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
