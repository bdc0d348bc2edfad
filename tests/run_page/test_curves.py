import base64
import dataclasses
import re

import numpy as np
import pytest

from virtex_det.run_page.curves import Series, draw_curves, read_series


def test_lines_that_are_damaged_and_values_that_are_no_numbers_are_left_out(tmp_path):
    assert read_series(tmp_path) == {}
    lines = ['{"iteration": 0, "lr": 1, "total_loss": NaN}', "[]", '{"lr": 2}', '{"iteration": 1']
    lines.append('{"iteration": 1, "lr": 3.5, "note": "text"}')
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    series = read_series(tmp_path)
    assert [*series] == ["lr"]
    assert series["lr"].iterations.tolist() == [1, 2]
    assert series["lr"].values.tolist() == [1, 3.5]


def test_a_long_curve_is_thinned_and_keeps_its_end_and_its_mean(tmp_path):
    thin = Series(np.arange(1, 4001), np.arange(4000.0)).thinned()
    assert len(thin.values) <= 400 and thin.iterations[-1] == 4000
    assert thin.values.mean() == np.arange(4000.0).mean()


def test_curves_are_of_evaluations_in_training_only(make_record):
    in_training = [make_record(iteration=10), make_record(iteration=20)]
    other = dataclasses.replace(make_record(iteration=30), evaluated={"path": "w.pth"})
    assert [plot["title"] for plot in draw_curves({}, in_training)] == ["Evaluations on scenes_val"]
    assert draw_curves({}, [other]) == []


@pytest.mark.parametrize(("points", "marks"), [(1, 1), (2, 0)])
def test_a_run_that_logged_once_has_a_mark_for_a_line_that_cannot_be_seen(points, marks):
    series = Series(np.arange(1, points + 1), np.ones(points))
    [plot] = draw_curves({"lr": series}, [])
    svg = base64.b64decode(plot["light"].partition("base64,")[2]).decode()
    # Only what stands for data is clipped to the axes; ticks and the legend are not.
    assert len(re.findall(r'<g clip-path="[^"]*">\s*<use', svg)) == marks
