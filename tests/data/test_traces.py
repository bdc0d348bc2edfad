import math

import pytest
import torch

from virtex_det.data.traces import (
    Window,
    crop_points,
    flip_points,
    inside,
    points_within,
    render,
    render_batch,
)


def _within(times, starts, ends):
    interval, point = points_within(
        *(torch.tensor(values, dtype=torch.float32) for values in (times, starts, ends))
    )
    return list(zip(interval.tolist(), point.tolist(), strict=True))


def test_both_ends_of_an_interval_belong_to_it():
    assert _within([0.1, 0.2, 0.3, 0.4], [0.2], [0.3]) == [(0, 1), (0, 2)]


def test_an_interval_of_no_length_has_the_points_of_its_moment():
    assert _within([0.0, 0.0, 0.1], [0.0, 0.05], [0.0, 0.05]) == [(0, 0), (0, 1)]


def test_intervals_may_overlap_and_share_points():
    assert _within([1, 2, 3], [0, 2], [2, 3]) == [(0, 0), (0, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    "start, end", [(3, 1), (math.inf, -math.inf), (math.nan, math.nan), (7, 8)]
)
def test_an_interval_that_runs_backwards_or_past_the_end_has_no_points(start, end):
    assert _within([1, 2, 3], [start], [end]) == []


def test_without_points_or_intervals_there_are_no_pairs():
    assert _within([], [0], [1]) == [] and _within([1], [], []) == []


def test_pairs_are_those_of_a_comparison_of_all_with_all():
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        times = torch.randint(0, 20, (30,), generator=generator).sort().values
        starts, ends = torch.randint(0, 20, (2, 12), generator=generator)
        every = [(i, j) for i in range(12) for j in range(30) if starts[i] <= times[j] <= ends[i]]
        assert _within(times.tolist(), starts.tolist(), ends.tolist()) == every


def test_a_crop_moves_its_corners_to_those_of_the_image():
    window = Window(left=0.25, top=0.5, width=0.5, height=0.25)
    corners = torch.tensor([[0.25, 0.5], [0.75, 0.75], [0.5, 0.5], [0.0, 0.25]])
    assert crop_points(corners, window).tolist() == [[0, 0], [1, 1], [0.5, 0], [-0.5, -1]]


def test_a_flip_mirrors_x_alone_and_twice_is_none():
    points = torch.tensor([[0.25, 0.75], [-0.5, 0.0]])
    assert flip_points(points).tolist() == [[0.75, 0.75], [1.5, 0.0]]
    assert torch.equal(flip_points(flip_points(points)), points)


def test_points_beyond_any_border_are_outside_and_none_is_clamped():
    points = torch.tensor(
        [[0.0, 0.0], [0.999, 0.5], [1.0, 0.5], [0.5, 1.0], [-0.001, 0.5], [0.5, -1e-6]]
    )
    assert inside(points).tolist() == [True, True, False, False, False, False]


def test_a_point_marks_its_cell_by_row_and_column():
    mask = render(
        torch.tensor([[1.0, 0.9, 0.1], [1.0, 0.9, 0.12], [2.0, 0.0, 0.5]]), length=4, resolution=7
    )
    assert mask.dtype == torch.bool and mask.nonzero().tolist() == [[1, 0, 6], [2, 3, 0]]


@pytest.mark.parametrize("resolution", [1, 3, 7, 14, 224])
def test_the_last_number_below_one_falls_into_the_last_cell(resolution):
    almost = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    mask = render(torch.stack([torch.tensor(0.0), almost, almost])[None], 1, resolution)
    assert mask.nonzero().tolist() == [[0, resolution - 1, resolution - 1]]


def test_no_points_give_empty_masks():
    assert not render(torch.empty(0, 3), length=5, resolution=7).any()


def test_a_batch_has_the_masks_of_its_captions():
    points = [
        torch.tensor([[0.0, 0.1, 0.9]]),
        torch.empty(0, 3),
        torch.tensor([[2.0, 0.5, 0.5], [1.0, 0.0, 0.0]]),
    ]
    together = render_batch(points, length=3, resolution=5)
    assert torch.equal(together, torch.stack([render(each, 3, 5) for each in points]))
