import os
import re
from pathlib import Path

import pytest

from tests.processes import run_script
from virtex_det.benchmark.comparison import read_comparison
from virtex_det.cli import benchmark
from virtex_det.errors import UserError
from virtex_det.experiments.matrix_file import read_matrix

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "benchmark.py"
MATRIX = """
title: Two starts
output: {folder}/runs
protocols: {{scenes-segm: {root}/configs/detectron2/scenes_segm.yaml}}
baseline: random init
starts:
  random init: ""
  captions:
    pretrain: {root}/configs/pretrain/scenes_bicaptioning.yaml
    seed: 0
    options: {{INPUT.CAPTION.TOKENIZER: {vocabulary}, MODEL.TEXTUAL.VOCAB_SIZE: 240, {tiny}}}
fractions: [0.5, 1.0]
seeds: [0, 1]
options: {{{tiny}}}
"""
TINY = (
    "SOLVER.MAX_ITER: 2, SOLVER.WARMUP_ITERS: 1, SOLVER.IMS_PER_BATCH: 2, "
    "MODEL.RESNETS.RES2_OUT_CHANNELS: 8"
)


@pytest.fixture
def matrix(tmp_path, vocabulary) -> Path:
    text = MATRIX.format(folder=tmp_path, root=ROOT, vocabulary=vocabulary, tiny=TINY)
    (tmp_path / "matrix.yaml").write_text(text)
    return tmp_path / "matrix.yaml"


@pytest.fixture
def done(matrix, make_record) -> Path:
    """A matrix whose run folders look complete."""
    for cell, run in read_matrix(matrix).cells.items():
        run.folder.mkdir(parents=True)
        (run.folder / "model_final.pth").touch()
        box = 10 * cell.fraction * (1 + (cell.start == "captions")) + cell.seed
        make_record(box, seed=cell.seed, fraction=cell.fraction, iteration=run.iterations).write(
            run.folder
        )
    return matrix


def main(*words: object) -> None:
    benchmark.main([str(word) for word in words])


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("markdown", "| captions | **10.5 ± 0.7** |"),
        ("csv", "captions,0.5,2,10.5"),
        ("latex", r"\textbf{10.5 $\pm$ 0.7}"),
    ],
)
def test_the_table_comes_in_three_formats(done, capsys, style, expected):
    main("table", done, "--format", style)
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("markdown", "| captions | **10.5 ± 0.7** | **20.5 ± 0.7** |"),
        ("csv", "captions,10.5,"),
        ("latex", r"captions & \textbf{10.5 $\pm$ 0.7} & \textbf{20.5 $\pm$ 0.7} &"),
    ],
)
def test_one_table_over_protocols_comes_in_three_formats(done, capsys, style, expected):
    main("table", done, "--wide", "--format", style)
    assert expected in capsys.readouterr().out


def test_one_table_over_protocols_is_no_page(done, capsys):
    with pytest.raises(SystemExit):
        main("table", done, "--wide", "--page", "page.md")
    assert "not allowed with argument --wide" in capsys.readouterr().err


def test_other_metrics_can_be_shown(done, capsys):
    main("table", done, "--metrics", "bbox/AP50")
    assert "Box AP50" in (text := capsys.readouterr().out) and "Mask" not in text


def test_what_is_complete_is_not_run_again(done, capsys):
    main("run", done)
    assert "| captions |" in capsys.readouterr().out


def test_the_page_is_the_same_from_runs_and_from_records(done, tmp_path, capsys):
    records, page = tmp_path / "results" / "all.jsonl", tmp_path / "page.md"
    main("table", done, "--page", page, "--write-records", records)
    from_runs = page.read_text()
    assert len(read_comparison(records).records) == 8 and (tmp_path / "page.svg").exists()
    main("table", done, "--page", page, "--records", records)
    without_commands = from_runs.split("## Do it again")[0]
    assert page.read_text().startswith(without_commands)
    assert f"table {done} --page {page} --records {records}" in page.read_text()


def test_an_edited_record_is_refused(done):
    path = done.parent / "runs" / "captions_scenes_segm_0.5_0" / "results.jsonl"
    path.write_text(path.read_text().replace('"AP": 10.0', '"AP": 90.0'))
    with pytest.raises(UserError, match="edited by hand"):
        main("table", done)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
@pytest.mark.parametrize(
    "words", [(), ("--against", "time"), ("--against", "time", "--count-pretraining")]
)
def test_curves_are_drawn(done, tmp_path, suffix, words):
    main("plot", done, "--output", tmp_path / f"curves{suffix}", *words)
    assert (tmp_path / f"curves{suffix}").stat().st_size > 5000


def test_the_report_of_an_unfinished_matrix_says_what_is_missing(done, tmp_path):
    page = tmp_path / "page.html"
    run = next(run for cell, run in read_matrix(done).cells.items() if cell.seed == 1)
    (run.folder / "results.jsonl").unlink()
    with pytest.raises(UserError, match="1 of the 8 runs in .* are not complete(?s:.*)--partial"):
        main("report", done, "--output", page)
    main("report", done, "--output", page, "--partial")
    assert "7 of the 8 runs of the matrix are complete" in page.read_text()
    main("table", done, "--partial", "--write-records", tmp_path / "some.jsonl")
    main("report", done, "--output", page, "--partial", "--records", tmp_path / "some.jsonl")
    assert "Missing: seed 1 of random init at 50" in page.read_text()


def test_the_report_is_written(done, tmp_path):
    main("report", done, "--output", tmp_path / "page.html")
    assert "Two starts" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("--jobs", "-1"),
        ("--gpus-per-job", "-1"),
        ("--minutes", "0"),
        ("--jobs", "two"),
        ("--slurm-option", "account"),
    ],
    ids=" ".join,
)
def test_invalid_options_of_a_run_are_refused_before_it(done, capsys, words):
    with pytest.raises(SystemExit) as caught:
        main("run", done, *words)
    assert caught.value.code == 2 and f"argument {words[0]}: " in capsys.readouterr().err


def test_records_of_another_matrix_do_not_stand_under_this_ones_title(done, tmp_path):
    main("table", done, "--write-records", tmp_path / "all.jsonl")
    done.write_text(done.read_text().replace("  captions:", "  other captions:"))
    with pytest.raises(UserError, match="records of another matrix, e.g. of captions"):
        main("table", done, "--records", tmp_path / "all.jsonl")


def test_a_mistake_is_one_screen_and_exit_code_1(matrix):
    matrix.write_text(
        matrix.read_text().replace('random init: ""', "random init: virtex://bicaptioning_R_50")
    )
    run = run_script(TOOL, "run", matrix, cwd=ROOT)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert (
        "Nearest names: bicaptioning_R_50_L1_H" in run.stderr and len(run.stderr.splitlines()) < 40
    )


@pytest.mark.slow
def test_a_matrix_is_run_from_pretraining_to_the_table(matrix, scenes, tmp_path):
    text = (
        matrix.read_text()
        .replace("fractions: [0.5, 1.0]", "fractions: [0.5]")
        .replace("[0, 1]", "[1]")
    )
    matrix.write_text(text)
    command = (TOOL, "run", matrix, "--jobs", "2")
    environment = os.environ | {"DETECTRON2_DATASETS": str(scenes.parent)}
    run = run_script(*command, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "| captions |" in run.stdout
    again = run_script(*command, cwd=ROOT, env=environment)
    assert again.returncode == 0 and again.stdout == run.stdout
    assert (
        len(
            (tmp_path / "runs" / "captions_scenes_segm_0.5_1" / "results.jsonl")
            .read_text()
            .splitlines()
        )
        == 1
    )


@pytest.mark.slow
def test_frozen_features_are_measured_beside_the_fine_tunes(matrix, scenes, tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    protocols = f"""{{
  scenes-segm: {{config: {ROOT}/configs/detectron2/scenes_segm.yaml, fractions: [0.5]}},
  scenes-linear-svm: {{config: {ROOT}/configs/probes/scenes_svm.yaml, fractions: [1.0]}}}}"""
    text = re.sub("protocols: .*", f"protocols: {protocols}", matrix.read_text())
    matrix.write_text(text.replace("[0, 1]", "[1]"))
    records = tmp_path / "kept.jsonl"
    command = (TOOL, "run", matrix, "--jobs", "1", "--records", records)
    environment = os.environ | {"DETECTRON2_DATASETS": str(scenes.parent)}
    run = run_script(*command, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    found = read_comparison(records, mix=True).records
    assert [(cell.protocol, cell.fraction) for cell in found] == 2 * [
        ("scenes-segm", 0.5),
        ("scenes-linear-svm", 1.0),
    ]
    probes = {cell.start: found[cell] for cell in found if cell.protocol == "scenes-linear-svm"}
    assert probes.keys() == {"random init", "captions"}
    for start, record in probes.items():
        assert 0 < record.metrics["svm"]["mAP"] <= 100
        own = f"{tmp_path}/runs/pretrain/captions_0/model_final.pth"
        assert record.weights["path"] == (own if start == "captions" else "")
    assert len({record.protocol for record in probes.values()}) == 1
    kept = records.read_bytes()
    again = run_script(*command, cwd=ROOT, env=environment)
    assert again.returncode == 0 and again.stdout == run.stdout and records.read_bytes() == kept
    records.unlink()
    from_folders = run_script(*command, cwd=ROOT, env=environment)
    assert from_folders.returncode == 0 and records.read_bytes() == kept
