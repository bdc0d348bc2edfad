"""Published weights by name: ``virtex://NAME`` as a path, and configs and models for them."""

from detectron2.utils.file_io import PathManager

from virtex_det.model_zoo.catalog import list_models
from virtex_det.model_zoo.handler import VirtexHandler
from virtex_det.model_zoo.zoo import get, get_checkpoint_url, get_config, get_config_file

PathManager.register_handler(VirtexHandler())

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file", "list_models"]
