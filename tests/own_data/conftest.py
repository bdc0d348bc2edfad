"""The small data sets of the tests of readers."""

from tests.data.datasets.conftest import catalog, coco, voc, write_image, yolo

__all__ = ["catalog", "coco", "voc", "write_image", "yolo"]
