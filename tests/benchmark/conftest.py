"""Records as runs leave them."""

from collections.abc import Callable

import pytest

from virtex_det.benchmark.records import ResultRecord


@pytest.fixture
def make_record() -> Callable[..., ResultRecord]:
    def make(
        box_ap: float = 10.0,
        mask_ap: float | None = 8.0,
        *,
        init: str = "random init",
        seed: int = 0,
        fraction: float = 0.1,
        iteration: int = 200,
    ) -> ResultRecord:
        return ResultRecord(
            protocol="scenes-segm",
            dataset="scenes_val",
            train_datasets=("scenes_train",),
            train_fraction=fraction,
            subset_seed=seed,
            seed=seed,
            iteration=iteration,
            metrics={"bbox": {"AP": box_ap, "AP50": 2 * box_ap}, "segm": {"AP": mask_ap, "AP50": None}},
            weights={"format": init, "path": "", "sha256": ""},
            evaluated="",
            config_sha256="0" * 64,
            wall_seconds=1.0,
        )

    return make
