import cv2
import numpy as np
import pytest

from virtex_det.data.datasets.scenes.shapes import OUTLINES, UNIT


def _rasterized(outline):
    canvas = np.zeros((4 * UNIT // 32, 4 * UNIT // 32), np.uint8)
    cv2.fillPoly(
        canvas, [((contour + 2 * UNIT) // 32).astype(np.int32) for contour in outline], (1,)
    )
    return canvas


@pytest.mark.parametrize("shape", OUTLINES)
def test_every_outline_has_unit_area(shape):
    assert int(_rasterized(OUTLINES[shape]).sum()) * 32**2 == pytest.approx(UNIT**2, rel=0.05)


@pytest.mark.parametrize("shape", OUTLINES)
def test_every_outline_is_centered(shape):
    points = np.concatenate(OUTLINES[shape])
    assert np.abs(points.min(axis=0) + points.max(axis=0)).max() <= 4


def test_only_the_ring_has_a_hole():
    center = {
        shape: _rasterized(outline)[2 * UNIT // 32, 2 * UNIT // 32]
        for shape, outline in OUTLINES.items()
    }
    assert [shape for shape, outline in OUTLINES.items() if len(outline) > 1] == ["ring"]
    assert center["ring"] == 0 and center["circle"] == center["star"] == 1
