"""Caption-pretrained ResNets in Detectron2: pretrain, load, fine-tune, evaluate.

Importing the package registers its backbones, models and datasets with Detectron2. It takes in none of the text stack:
that comes with the ``[pretrain]`` extra, at the moment a pretraining config asks for it.
"""

import warnings

# Detectron2 scripts two functions at import; nobody here can change that, and nobody needs to read it at every start.
warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated", category=FutureWarning)

try:
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"virtex_det needs Detectron2, which cannot be imported here ({error}); "
        "install it with: python tools/install_detectron2.py"
    ) from error

import virtex_det.data
import virtex_det.model_zoo
import virtex_det.modeling  # noqa: F401  (each registers what it defines)
from virtex_det.config import add_virtex_det_config, get_cfg

__version__ = "0.1.0"
__all__ = ["add_virtex_det_config", "get_cfg"]
