"""Captioned scenes, the built-in data: coloured shapes with exact masks, boxes and captions."""

from virtex_det.data.datasets.scenes.captions import SHAPE_WORDS, Instance
from virtex_det.data.datasets.scenes.drawing import SPLITS, Scene, draw_scene
from virtex_det.data.datasets.scenes.files import FOLDERS, generate_scenes
from virtex_det.data.datasets.scenes.shapes import SHAPES

__all__ = [
    "FOLDERS",
    "SHAPES",
    "SHAPE_WORDS",
    "SPLITS",
    "Instance",
    "Scene",
    "draw_scene",
    "generate_scenes",
]
