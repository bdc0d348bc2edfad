import math

import numpy as np

from virtex_det.evaluation.detection.coco_format import Tables, percent


def test_a_mean_is_over_what_there_is():
    assert percent(np.array([0.5, -1.0, 1.0])) == 75
    assert math.isnan(percent(np.array([-1.0])))


def test_tables_are_asked_by_threshold_area_and_limit():
    precision, recall = np.zeros((10, 101, 2, 4, 2)), np.zeros((10, 2, 4, 2))
    precision[5, :, :, 0, 1] = 1
    precision[:, :, 1, 2, 0] = 0.5
    recall[:, :, 3, 0] = 0.25
    tables = Tables(precision, recall, [1, 100])
    assert (
        tables.ap_at(100, 0.75),
        tables.ap_at(100, 0.5),
        tables.ap_at(1, 0.75),
        tables.ap(100),
    ) == (100, 0, 0, 10)
    assert (tables.ap(1, 2), tables.ap(1, 2, [1]), tables.ap(1, 2, [0])) == (25, 50, 0)
    assert (tables.ar(1, 3), tables.ar(100, 3)) == (25, 0)
