"""Captioned scenes, the built-in data: coloured shapes with exact masks, boxes and captions."""

from virtex_det.data.datasets.scenes.captions import Instance
from virtex_det.data.datasets.scenes.drawing import SPLITS, Scene, draw_scene
from virtex_det.data.datasets.scenes.files import generate_scenes
from virtex_det.data.datasets.scenes.shapes import SHAPES

__all__ = ["SHAPES", "SPLITS", "Instance", "Scene", "draw_scene", "generate_scenes"]
