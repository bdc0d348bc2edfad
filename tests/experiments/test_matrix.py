import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from virtex_det.benchmark.comparison import Cell
from virtex_det.benchmark.costs import RunCost
from virtex_det.benchmark.published import PublishedResult
from virtex_det.errors import UserError
from virtex_det.experiments.matrix import (
    Matrix,
    Pretraining,
    in_order,
    measured,
    recorded,
    report,
    run_matrix,
)

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = ROOT / "configs/detectron2/scenes_segm.yaml"
PROBE = ROOT / "configs/probes/scenes_svm.yaml"
CAPTIONS = Pretraining(ROOT / "configs/pretrain/scenes_bicaptioning.yaml")


def make_matrix(folder: Path, **fields) -> Matrix:
    starts = {"random init": "", "VirTex, again": CAPTIONS}
    standard = {
        "title": "Two starts",
        "output": folder / "runs",
        "protocols": {"scenes-segm": DETECTOR},
    }
    standard |= {
        "starts": starts,
        "fractions": (0.1, 1),
        "seeds": (0, 3),
        "baseline": "random init",
    }
    return Matrix(**standard | fields)


@pytest.fixture
def matrix(tmp_path) -> Matrix:
    return make_matrix(tmp_path)


def options_of(run) -> dict[str, str]:
    return dict(zip(run.options[::2], run.options[1::2], strict=True))


def finish(matrix: Matrix, make_record, **fields) -> None:
    """Leave the folders of a matrix as its runs would."""
    for cell, run in matrix.cells.items():
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "model_final.pth").touch()
        record = make_record(9.0, seed=cell.seed, fraction=cell.fraction, iteration=run.iterations)
        dataclasses.replace(record, **fields).write(run.folder)


def test_runs_and_written_records_stand_beside_what_the_matrix_has_published(tmp_path, make_record):
    result = PublishedResult("scenes-segm", "rival", {"bbox": {"AP": 9.0}}, "Doe", "arXiv", "READ")
    matrix = make_matrix(tmp_path, published=(result,), starts={"random init": ""})
    finish(matrix, make_record)
    comparison = measured(matrix)
    assert comparison.published_for("scenes-segm") == [result]
    comparison.write_records(tmp_path / "records.jsonl")
    assert recorded(matrix, tmp_path / "records.jsonl").published_for("scenes-segm") == [result]


def test_runs_of_a_seed_differ_in_their_weights_alone(matrix):
    assert len(matrix.cells) == 8 and len({run.folder for run in matrix.cells.values()}) == 8
    cells = [Cell(start, "scenes-segm", 1.0, 3) for start in matrix.starts]
    random, captions = (options_of(matrix.cells[cell]) for cell in cells)
    weights = matrix.cells[cells[1]].after.folder / "model_final.pth"
    assert (random.pop("MODEL.WEIGHTS"), captions.pop("MODEL.WEIGHTS")) == ("", str(weights))
    assert random == captions
    assert (random["SEED"], random["DATASETS.SUBSET_SEED"], random["DATASETS.TRAIN_FRACTION"]) == (
        "3",
        "3",
        "1.0",
    )


def test_each_seed_is_pretrained_by_itself_and_named_after_start_and_seed(matrix):
    assert [run.folder.name for run in matrix.pretraining()] == ["virtex_again_0", "virtex_again_3"]
    assert [options_of(run)["SEED"] for run in matrix.pretraining()] == ["0", "3"]
    assert all(
        run.after is None or run.after.folder.name[-1] == options_of(run)["SEED"]
        for run in matrix.cells.values()
    )


def test_one_pretraining_can_serve_all_seeds(tmp_path):
    matrix = make_matrix(
        tmp_path, starts={"captions": dataclasses.replace(CAPTIONS, seed=1)}, baseline=""
    )
    assert [run.folder.name for run in matrix.pretraining()] == ["captions_1"]


def test_a_folder_depends_on_start_protocol_fraction_and_seed_only(tmp_path):
    one = make_matrix(tmp_path, fractions=(0.1,), starts={"a": "", "random init": ""})
    other = make_matrix(tmp_path, seeds=(3,), title="Other")
    cell = Cell("random init", "scenes-segm", 0.1, 3)
    assert (
        one.cells[cell].folder
        == other.cells[cell].folder
        == tmp_path / "runs" / "random_init_scenes_segm_0.1_3"
    )


def test_schedules_are_those_of_the_configs_and_may_be_set_by_options(tmp_path, matrix):
    assert {run.iterations for run in matrix.pretraining()} == {650}
    assert {run.iterations for run in matrix.cells.values()} == {150}
    short = {"SOLVER.MAX_ITER": 20, "SOLVER.WARMUP_ITERS": 2}
    quick = make_matrix(
        tmp_path,
        options=short,
        starts={"captions": dataclasses.replace(CAPTIONS, options=short)},
        baseline="",
    )
    assert {run.iterations for run in [*quick.cells.values(), *quick.pretraining()]} == {20}
    assert all(
        options_of(run)["SOLVER.MAX_ITER"] == "20"
        for run in [*quick.cells.values(), *quick.pretraining()]
    )


def test_a_schedule_in_proportion_to_the_labels_is_complete_in_proportion(tmp_path):
    matrix = make_matrix(tmp_path, options={"SOLVER.REFERENCE_FRACTION": 1.0})
    assert {cell.fraction: run.iterations for cell, run in matrix.cells.items()} == {
        0.1: 15,
        1.0: 150,
    }
    assert "SOLVER.MAX_ITER" not in options_of(next(iter(matrix.cells.values())))


def test_all_runs_of_a_seed_come_before_those_of_the_next(matrix):
    names = [run.folder.name for run in in_order(matrix.seeds, matrix.cells, matrix.pretraining())]
    assert names == [
        *("random_init_scenes_segm_0.1_0", "random_init_scenes_segm_1.0_0"),
        *("virtex_again_0", "virtex_again_scenes_segm_0.1_0", "virtex_again_scenes_segm_1.0_0"),
        *("random_init_scenes_segm_0.1_3", "random_init_scenes_segm_1.0_3"),
        *("virtex_again_3", "virtex_again_scenes_segm_0.1_3", "virtex_again_scenes_segm_1.0_3"),
    ]


def test_seeds_are_done_in_the_order_of_the_matrix(tmp_path):
    matrix = make_matrix(tmp_path, seeds=(3, 0), fractions=(1.0,), starts={"random init": ""})
    assert [run.folder.name[-1] for run in in_order(matrix.seeds, matrix.cells, [])] == ["3", "0"]


def test_a_first_seed_that_is_done_in_part_is_finished_before_the_next_seed_begins(matrix):
    missing = {
        cell: run
        for cell, run in matrix.cells.items()
        if (cell.start, cell.seed) != ("random init", 0)
    }
    order = in_order(matrix.seeds, missing, [])
    assert [run.folder.name[-1] for run in order] == ["0", "0", "3", "3", "3", "3"]


def test_pretraining_for_all_seeds_comes_once_and_what_is_complete_never(tmp_path):
    starts = {"captions": dataclasses.replace(CAPTIONS, seed=1)}
    matrix = make_matrix(tmp_path, starts=starts, baseline="", fractions=(1.0,))
    order = in_order(matrix.seeds, matrix.cells, matrix.pretraining())
    assert order == [*matrix.pretraining(), *matrix.cells.values()]
    assert in_order(matrix.seeds, matrix.cells, []) == [*matrix.cells.values()]


def with_probe(folder: Path, **fields) -> Matrix:
    protocols = {"scenes-segm": DETECTOR, "scenes-linear-svm": PROBE}
    standard = {"protocols": protocols, "some_fractions": {"scenes-linear-svm": (1.0,)}}
    return make_matrix(folder, **standard | fields)


def test_a_probe_runs_with_its_fraction_after_the_fine_tunes_of_its_weights(tmp_path):
    matrix = with_probe(tmp_path, seeds=(3,))
    [weights] = matrix.pretraining()
    order = in_order(matrix.seeds, matrix.cells, [weights])[-4:]
    assert [run.folder.name for run in order] == [
        "virtex_again_3",
        *("virtex_again_scenes_segm_0.1_3", "virtex_again_scenes_segm_1.0_3"),
        "virtex_again_scenes_linear_svm_1.0_3",
    ]
    assert [run.is_probe for run in order] == [False, False, False, True]
    assert order[-1].after == weights and order[-1].dataset == "scenes_val"
    assert options_of(order[-1])["MODEL.WEIGHTS"] == str(weights.folder / "model_final.pth")
    assert options_of(order[-1])["SEED"] == "3", "which draws the network of random init"


def test_a_schedule_under_options_is_no_departure_of_a_probe(tmp_path):
    options = {"SOLVER.MAX_ITER": 20, "SOLVER.WARMUP_ITERS": 2, "DATALOADER.NUM_WORKERS": 1}
    matrix = with_probe(tmp_path, options=options)
    [probe, *_] = [run for run in matrix.cells.values() if run.is_probe]
    assert "SOLVER.MAX_ITER" not in options_of(probe)
    assert options_of(probe)["DATALOADER.NUM_WORKERS"] == "1"
    assert matrix.cards()["scenes-linear-svm"]["protocol"] == "scenes-linear-svm"


def test_a_probe_of_a_part_of_the_labels_is_refused_before_anything_begins(tmp_path):
    matrix = with_probe(tmp_path, some_fractions={})
    with pytest.raises(UserError, match=r"(?s)SVM probe, which .* not from 10 %.*fractions: .1.0"):
        run_matrix(matrix)
    assert not any(tmp_path.iterdir())


def test_runs_that_are_missing_are_counted_and_not_taken_for_zero(matrix):
    with pytest.raises(UserError, match="8 of the 8 runs in .* not complete"):
        measured(matrix)


def test_what_there_is_can_be_shown_when_asked_for(matrix, make_record):
    finish(make_matrix(matrix.output.parent, seeds=(0,)), make_record)
    with pytest.raises(UserError, match="4 of the 8"):
        measured(matrix)
    partly = measured(matrix, partial=True)
    assert partly.seeds == [0] and {cell.seed for cell in partly.missing} == {3}


def test_what_was_measured_is_the_record_of_the_last_iteration(matrix, make_record):
    finish(matrix, make_record)
    finish(matrix, make_record, metrics={"bbox": {"AP": 1.0}}, iteration=50)
    comparison = measured(matrix)
    assert {record.metrics["bbox"]["AP"] for record in comparison.records.values()} == {9.0}
    assert all(cell.seed == record.seed for cell, record in comparison.records.items())


def test_a_matrix_compares_two_protocols_but_two_recipes_of_one_when_asked_for(matrix, make_record):
    finish(matrix, make_record)
    finish(
        make_matrix(matrix.output.parent, protocols={"other": DETECTOR}),
        make_record,
        protocol="other",
    )
    both = make_matrix(matrix.output.parent, protocols={"scenes-segm": DETECTOR, "other": DETECTOR})
    assert measured(both).protocols == ["scenes-segm", "other"]
    for cell, run in both.cells.items():
        if cell.protocol == "other" and cell.seed:
            record = dataclasses.replace(run.record(), protocol="other+SOLVER.BASE_LR=0.5")
            record.write(run.folder)
    with pytest.raises(UserError, match="records are of 2 protocols of other"):
        measured(both)
    assert len(measured(both, mix=True).recipes) == 3


def test_a_record_of_another_cell_is_refused(matrix, make_record):
    finish(matrix, make_record, seed=7)
    with pytest.raises(UserError, match="seed 7"):
        measured(matrix)


def test_kept_records_are_those_of_the_matrix(matrix, make_record, tmp_path):
    finish(matrix, make_record)
    records = tmp_path / "kept.jsonl"
    measured(matrix).write_records(records)
    assert recorded(matrix, records) == measured(matrix)
    with pytest.raises(
        UserError, match="records of another matrix, e.g. of VirTex, again, scenes-segm, 0.1, 0"
    ):
        recorded(make_matrix(tmp_path, starts={"random init": ""}), records)
    more = make_matrix(tmp_path, seeds=(0, 3, 4))
    with pytest.raises(UserError, match="lacks 4 of the 12 runs"):
        recorded(more, records)
    assert len(recorded(more, records, partial=True).records) == 8


def test_a_complete_matrix_needs_neither_its_pretraining_nor_its_data(matrix, make_record):
    finish(matrix, make_record)
    assert len(run_matrix(matrix).records) == 8
    assert not any(run.folder.exists() for run in matrix.pretraining())


def cost_of(run) -> RunCost:
    """Return the cost of a pretraining, by which runs of other seeds differ."""
    return RunCost(
        iterations=run.iterations,
        images=16 * run.iterations,
        captions_per_image=1,
        training_seconds=10.0,
        cpu_seconds=float(options_of(run)["SEED"]),
        processes=1,
    )


class FinishingLauncher:
    """Finishes each run at once, as a training would, and remembers which."""

    at_once = 1

    def __init__(self, matrix: Matrix, make_record, until: int = 100) -> None:
        self.cells = {run: cell for cell, run in matrix.cells.items()}
        self.make_record, self.until, self.started = make_record, until, []

    def start(self, run):
        if len(self.started) == self.until:
            raise KeyboardInterrupt
        self.started.append(run)
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "model_final.pth").touch()
        if run not in self.cells:
            cost_of(run).write(run.folder)
        if cell := self.cells.get(run):
            fields = {"seed": cell.seed, "fraction": cell.fraction, "iteration": run.iterations}
            record = self.make_record(10.0 * cell.fraction + cell.seed, **fields)
            if run.is_probe:
                (run.folder / "model_final.pth").unlink()
                metrics = {"svm": {"mAP": 10.0 + cell.seed, "mAP-area": 9.0}}
                record = dataclasses.replace(record, protocol=cell.protocol, metrics=metrics)
            record.write(run.folder)
        return SimpleNamespace(
            is_running=lambda: False,
            failure=lambda: "",
            let_go=lambda: None,
            await_end=lambda: None,
        )


@pytest.fixture
def without_sources(monkeypatch):
    monkeypatch.setattr("virtex_det.experiments.matrix.check_sources", lambda runs: None)


@pytest.mark.usefixtures("without_sources")
def test_a_stopped_matrix_goes_on_elsewhere_from_its_kept_records(tmp_path, make_record):
    kept = tmp_path / "new folder" / "kept.jsonl"
    here, there = make_matrix(tmp_path / "here"), make_matrix(tmp_path / "there")
    stopped = FinishingLauncher(here, make_record, until=7)
    with pytest.raises(KeyboardInterrupt):
        run_matrix(here, stopped, kept)
    partly = recorded(here, kept, partial=True)
    assert len(partly.records) == 6, "seven runs, one a pretraining"
    going_on = FinishingLauncher(there, make_record)
    found = run_matrix(there, going_on, kept)
    assert list(found.records) == list(there.cells)
    names = [run.folder.name for run in going_on.started]
    assert names == ["virtex_again_3", *(name for name in names[1:] if name.endswith("_3"))]
    assert len(names) == 3, "the start of seed 0 is complete, so it is not pretrained again"
    assert {cell: cost.cpu_seconds for cell, cost in found.pretraining.items()} == {
        cell: cell.seed for cell in there.cells if cell.start != "random init"
    }


@pytest.mark.usefixtures("without_sources")
def test_a_pretraining_of_an_earlier_version_leaves_its_cost_unknown(matrix, make_record, tmp_path):
    kept = tmp_path / "kept.jsonl"
    run_matrix(matrix, FinishingLauncher(matrix, make_record), kept)
    assert len(measured(matrix).pretraining) == 4
    (matrix.pretraining()[0].folder / "cost.json").unlink()
    assert {cell.seed for cell in measured(matrix).pretraining} == {3}
    assert len(run_matrix(matrix, FinishingLauncher(matrix, make_record), kept).pretraining) == 4


def test_final_weights_named_by_their_path_bring_the_cost_of_their_run(tmp_path, make_record):
    matrix = make_matrix(tmp_path)
    cost = cost_of(matrix.pretraining()[0])
    (tmp_path / "elsewhere").mkdir()
    cost.write(tmp_path / "elsewhere")
    for name, found in {"model_final.pth": [cost] * 8, "model_0000099.pth": []}.items():
        weights = {"path": str(tmp_path / "elsewhere" / name), "sha256": "1", "format": ""}
        named = make_matrix(tmp_path, starts={"a": "", "b": ""}, baseline="")
        finish(named, make_record, weights=weights)
        assert list(measured(named).pretraining.values()) == found


@pytest.mark.usefixtures("without_sources")
def test_a_stopped_matrix_with_probes_goes_on_from_their_records_too(tmp_path, make_record):
    kept = tmp_path / "kept.jsonl"
    here, there = with_probe(tmp_path / "here"), with_probe(tmp_path / "there")
    with pytest.raises(KeyboardInterrupt):
        run_matrix(here, FinishingLauncher(here, make_record, until=7), kept)
    partly = recorded(here, kept, mix=True, partial=True)
    assert partly.seeds == [0] and len(partly.records) == 6, "the whole table of one seed"
    going_on = FinishingLauncher(there, make_record)
    found = run_matrix(there, going_on, kept)
    assert list(found.records) == list(there.cells)
    assert all(run.folder.name.endswith("_3") for run in going_on.started)


@pytest.mark.usefixtures("without_sources")
def test_complete_runs_that_the_file_lacks_are_added_to_it(matrix, make_record, tmp_path):
    finish(matrix, make_record)
    kept = tmp_path / "kept.jsonl"
    found = run_matrix(matrix, FinishingLauncher(matrix, make_record, until=0), kept)
    assert found.records == recorded(matrix, kept).records and len(found.records) == 8


def test_kept_records_of_another_protocol_are_refused_before_anything_runs(
    matrix, make_record, tmp_path
):
    finish(matrix, make_record, protocol="scenes-segm+SOLVER.BASE_LR=0.5")
    kept = tmp_path / "kept.jsonl"
    measured(matrix).write_records(kept)
    with pytest.raises(UserError, match=r"(?s)BASE_LR=0.5 as 'scenes-segm'.*now is scenes-segm\."):
        run_matrix(matrix, FinishingLauncher(matrix, make_record, until=0), kept)


def test_nothing_begins_when_a_protocol_measures_nothing(tmp_path):
    matrix = make_matrix(tmp_path, options={"DATASETS.TEST": ()})
    with pytest.raises(UserError, match="DATASETS.TEST of the protocol 'scenes-segm' is empty"):
        run_matrix(matrix)
    assert not any(tmp_path.iterdir())


def test_nothing_begins_when_one_start_cannot(tmp_path):
    matrix = make_matrix(tmp_path, starts={"random init": "", "lost": str(tmp_path / "lost.pth")})
    with pytest.raises(UserError, match="lost.pth"):
        run_matrix(matrix)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("without_sources")
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("runs", "runs is a file, not a folder"),
        ("runs/random_init_scenes_segm_1.0_3", "1.0_3 is a file, not a folder"),
        ("runs/pretrain", "pretrain is a file, not a folder"),
        ("runs/virtex_again_scenes_segm_0.1_0/stdout.txt/x", "stdout.txt is a folder"),
    ],
)
def test_what_is_in_the_way_of_a_run_is_found_before_any_run(matrix, place, message, make_record):
    (matrix.output.parent / place).parent.mkdir(parents=True, exist_ok=True)
    (matrix.output.parent / place).touch()
    launcher = FinishingLauncher(matrix, make_record)
    with pytest.raises(UserError, match=message):
        run_matrix(matrix, launcher)
    assert not launcher.started


@pytest.mark.usefixtures("without_sources")
@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_matrix_is_not_run_in_the_folder_of_another_run(tmp_path, below, make_record):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    matrix = make_matrix(tmp_path, output=run / below)
    run_matrix(matrix, FinishingLauncher(matrix, make_record))  # a config alone is the user's own
    (run / "metrics.json").touch()
    fewer = make_matrix(tmp_path, output=run / below, seeds=(7,))
    with pytest.raises(UserError, match="is in the folder of another run, .*run, whose files"):
        run_matrix(fewer, FinishingLauncher(fewer, make_record, until=0))


def test_a_protocol_has_a_card_with_the_departures_of_the_matrix(tmp_path):
    card = make_matrix(tmp_path, options={"SOLVER.BASE_LR": 0.002}).cards()["scenes-segm"]
    assert card["protocol"] == "scenes-segm+SOLVER.BASE_LR=0.002"


def test_the_report_is_a_page_of_its_own(matrix, make_record, tmp_path):
    finish(matrix, make_record)
    report(matrix, measured(matrix), tmp_path / "page.html", notes=["A note of ours."])
    page = (tmp_path / "page.html").read_text()
    assert (
        "Two starts" in page
        and "A note of ours." in page
        and "VirTex, again, 10 % of the labels" in page
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fractions": (0.1, 2.0)}, "matrix has 2.0"),
        ({"fractions": (0.0,)}, "matrix has 0.0"),
        ({"fractions": (0.1, 0.1)}, "fractions, or one of them twice"),
        ({"seeds": (0, 0)}, "seeds, or one of them twice"),
        ({"seeds": ()}, "no seeds"),
        (
            {"starts": {"a b": "", "A-b": ""}, "baseline": ""},
            "starts, or one of them twice: a_b, a_b",
        ),
        ({"baseline": "random"}, "is not a start; the nearest: random init"),
        ({"options": {"SEED": 3}}, "SEED under options"),
        (
            {"starts": {"a": dataclasses.replace(CAPTIONS, options={"SEED": 3})}, "baseline": ""},
            "SEED under options",
        ),
        (
            {
                "starts": {"a": "", "a b": ""},
                "protocols": {"b c": DETECTOR, "c": DETECTOR},
                "baseline": "",
            },
            "folders, or one of them twice: a_b_c, a_c, a_b_b_c, a_b_c",
        ),
    ],
)
def test_an_invalid_matrix_is_refused(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        make_matrix(tmp_path, **fields)


@pytest.mark.parametrize("name", ["x" * 300, "日" * 100])
def test_a_name_too_long_for_a_folder_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="too long for a folder"):
        make_matrix(tmp_path, starts={name: ""}, baseline="")


@pytest.mark.parametrize("name", ["../../x", "..", "/etc", "a\0b", "x\udc80", "$(touch x)", "a\nb"])
def test_no_name_leads_out_of_the_folder_of_the_runs(tmp_path, name):
    matrix = make_matrix(tmp_path, starts={name: CAPTIONS, "b": ""}, baseline="")
    folders = [run.folder for run in [*matrix.cells.values(), *matrix.pretraining()]]
    assert {folder.parent for folder in folders} == {
        tmp_path / "runs",
        tmp_path / "runs" / "pretrain",
    }
