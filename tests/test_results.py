"""The committed records, and the pages that show them."""

import json
import re
from pathlib import Path

import pytest

from virtex_det.benchmark.comparison import read_comparison
from virtex_det.benchmark.report import render_markdown_page
from virtex_det.benchmark.statistics import AP, summarize
from virtex_det.benchmark.tables import mean, render_markdown
from virtex_det.config import load_config
from virtex_det.experiments import read_matrix

ROOT = Path(__file__).resolve().parents[1]
SCENES = ROOT / "results" / "scenes.jsonl"
RATES = ROOT / "results" / "scenes_rates.jsonl"
POINTING = ROOT / "results" / "pretraining" / "pointing.jsonl"


def test_the_page_of_results_is_what_its_records_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    matrix = read_matrix("configs/benchmarks/scenes.yaml")
    page = (ROOT / "docs" / "results.md").read_text()
    commands = re.search(r"## Do it again\n\n```bash\n(.*?)\n```", page, re.DOTALL)[1].splitlines()
    comparison = read_comparison(SCENES, matrix.title, matrix.baseline, pairs=matrix.pairs)
    assert page == render_markdown_page(
        comparison,
        summarize(comparison, AP),
        cards=matrix.cards(),
        commands=commands,
        picture="results.svg",
    )
    assert set(comparison.records) == set(matrix.cells)


def test_the_pointing_game_on_the_page_is_what_its_records_give():
    page = (ROOT / "docs" / "icmlm_loctex.md").read_text()
    records = read_comparison(POINTING, baseline="before training")
    found = summarize(records, ["pointing/accuracy"])
    assert list(found["seeds"]) == [3, 3, 3]
    for row in found.reset_index().itertuples():
        test = f"{row.difference:+.1f} (p" if row.pairs else "|"
        assert f"| {row.start} | {mean(row).text} | {test}" in page


def test_the_figures_in_the_readme_are_those_of_the_records():
    readme = (ROOT / "README.md").read_text()
    comparison = read_comparison(SCENES, baseline="random init")
    table = render_markdown(comparison, summarize(comparison, AP)).splitlines()
    rows = [line for line in table if line.startswith(("| random init", "| VirTex bicaptioning"))][
        :2
    ]
    assert len(rows) == 2 and all(row in readme for row in rows)


def test_each_config_of_the_scenes_has_its_best_rate_on_held_out_scenes(monkeypatch):
    monkeypatch.chdir(ROOT)
    rates = read_matrix("configs/benchmarks/scenes_rates.yaml")
    records = read_comparison(RATES).records
    assert set(records) == set(rates.cells)
    best = {}
    for cell in sorted(records, key=lambda cell: records[cell].metrics["svm"]["mAP"]):
        start = rates.starts[cell.start]
        best[start.pretrain] = start.options["SOLVER.BASE_LR"]  # the last of a config stays
    assert best == {config: load_config(str(config)).SOLVER.BASE_LR for config in best}
    methods = read_matrix("configs/benchmarks/scenes_methods.yaml").starts.values()
    assert set(best) == {start.pretrain for start in methods if start}


@pytest.mark.parametrize("path", [SCENES, POINTING], ids=lambda path: path.stem)
def test_committed_records_are_of_clean_code_of_this_repository(path):
    revisions = {
        json.loads(line)["record"]["code_revision"] for line in path.read_text().splitlines()
    }
    assert all(re.fullmatch(r"[0-9a-f]{12}", revision) for revision in revisions)
