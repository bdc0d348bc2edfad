from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from virtex_det.config import load_config
from virtex_det.errors import UserError
from virtex_det.experiments import Pretraining
from virtex_det.experiments.configs import config_of
from virtex_det.experiments.matrix_file import read_matrix
from virtex_det.protocols.catalog import protocols
from virtex_det.protocols.matching import settings_digits

ROOT = Path(__file__).resolve().parents[2]
MATRIX = """
title: Two starts
output: runs
protocols:
  scenes-segm: configs/detectron2/scenes_segm.yaml
baseline: random init
starts:
  random init: ""
  captions:
    pretrain: configs/pretrain/scenes_bicaptioning.yaml
    seed: 1
    options: {SOLVER.MAX_ITER: 20}
fractions: [0.1, 1]
seeds: [0, 3]
options: {SOLVER.BASE_LR: 0.002}
"""


def read(tmp_path: Path, text: str):
    (tmp_path / "matrix.yaml").write_text(text)
    return read_matrix(tmp_path / "matrix.yaml")


def test_a_matrix_is_read_as_it_is_written(tmp_path):
    matrix = read(tmp_path, MATRIX)
    assert (matrix.title, matrix.output, matrix.baseline) == (
        "Two starts",
        Path("runs"),
        "random init",
    )
    assert matrix.starts["random init"] == ""
    config = Path("configs/pretrain/scenes_bicaptioning.yaml")
    assert matrix.starts["captions"] == Pretraining(config, 1, {"SOLVER.MAX_ITER": 20})
    assert (matrix.fractions, matrix.seeds, matrix.options) == (
        (0.1, 1.0),
        (0, 3),
        {"SOLVER.BASE_LR": 0.002},
    )


@pytest.mark.parametrize(
    "broken", ["- a list", "title: no more", "{", "", MATRIX.replace("[0, 3]", "many")]
)
def test_a_file_that_is_no_matrix_says_what_one_looks_like(tmp_path, broken):
    with pytest.raises(UserError, match=r"is not a matrix(?s:.*)Expected:"):
        read(tmp_path, broken)


@pytest.mark.parametrize(
    ("here", "there", "message"),
    [
        ("fractions:", "fraction:", "no key fraction; the nearest: fractions"),
        ("seed: 1", "seeds: 1", "no key seeds; the nearest: seed"),
        ("  captions:", '  random init: ""\n  captions:', "random init' occurs twice"),
        ("[0, 3]", "[0, 0]", "seeds, or one of them twice"),
        ("baseline: random init", "baseline: captoins", "the nearest: captions"),
        (
            "baseline: random init",
            "pairs: [[captions, random]]",
            "pairs: 'random' is not a start; the nearest: random init",
        ),
        (
            "baseline: random init",
            "pairs: [[captions]]",
            "`array` of length 2, got 1 - at `..pairs",
        ),
        ("baseline: random init", "pairs: [[captions, captions]]", "paired with itself"),
        (
            "baseline: random init",
            "pairs: [[captions, random init], [captions, random init]]",
            "listed twice",
        ),
        ("[0, 3]", '"03"', "`array`, got `str` - at `..seeds`"),
        ("[0, 3]", "[0.5, 1.7]", "`int`, got `float` - at `..seeds"),
        ("[0, 3]", "[true, false]", "`int`, got `bool` - at `..seeds"),
        ("[0, 3]", "[-1]", "`int` >= 0 - at `..seeds"),
        ("[0, 3]", f"[{2**32}]", "`int` <= 4294967295 - at `..seeds"),
        ("seed: 1", "seed: one", r"`int \| null`, got `str` - at `..starts.*seed`"),
        ("[0.1, 1]", "'1'", "`array`, got `str` - at `..fractions`"),
        ("output: runs", "output: ''", "name of a file or folder, got '' - at `..output`"),
        ("title: Two starts", "title:", "required field `title`"),
        ("  random init:", '  "": ""\n  "": a.pth\n  random init:', "'' occurs twice"),
    ],
)
def test_a_slip_is_named_with_what_was_meant(tmp_path, here, there, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, MATRIX.replace(here, there))


def test_what_is_left_empty_is_left_out(tmp_path):
    text = MATRIX.replace("baseline: random init", "baseline:").replace(
        "options: {SOLVER.BASE_LR: 0.002}", "options:"
    )
    matrix = read(tmp_path, text)
    assert (matrix.baseline, matrix.options, matrix.pairs) == ("", {}, ())


def test_pairs_of_starts_are_read_in_their_order(tmp_path):
    pairs = "pairs: [[random init, captions], [captions, random init]]"
    matrix = read(tmp_path, f"{MATRIX}\n{pairs}\n")
    assert matrix.pairs == (("random init", "captions"), ("captions", "random init"))


def test_a_protocol_may_be_run_with_some_of_the_fractions(tmp_path):
    frozen = "configs/detectron2/scenes_segm_frozen.yaml"
    more = f"  frozen: {{config: {frozen}, fractions: [1]}}\n  all: {{config: {frozen}}}\nbaseline:"
    matrix = read(tmp_path, MATRIX.replace("baseline:", more))
    assert matrix.protocols["frozen"] == matrix.protocols["all"] == Path(frozen)
    assert matrix.some_fractions == {"frozen": (1.0,)}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("{config: a.yaml, fraction: [1]}", "no key fraction; the nearest: fractions"),
        ("{fractions: [1]}", "required field `config`"),
        ("{config: a.yaml, fractions: 1}", r"`array \| null`, got `int` - at `\$.fractions`"),
        ("{config: a.yaml, fractions: [0.5]}", "fractions 0.5; expected some .*: 0.1, 1"),
        ("{config: a.yaml, fractions: [1, 1]}", "fractions 1, 1; expected"),
        ("{config: a.yaml, fractions: []}", "fractions none; expected"),
        ("[a.yaml]", r"name of a file or folder, got \['a.yaml'\] - at `\$.protocols"),
    ],
)
def test_a_slip_in_a_protocol_is_named(tmp_path, form, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, MATRIX.replace("baseline:", f"  more: {form}\nbaseline:"))


def test_code_in_a_matrix_is_not_run(tmp_path):
    with pytest.raises(UserError, match="is not a matrix"):
        read(tmp_path, MATRIX.replace("Two starts", "!!python/object/apply:os.getcwd []"))


def test_a_matrix_that_is_not_there_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match="There is no matrix"):
        read_matrix(tmp_path / "matrix.yaml")


def test_the_shipped_matrix_can_be_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    matrix = read_matrix("configs/benchmarks/scenes.yaml")
    assert len(matrix.cells) == 8 * 6 * 3
    assert {run.folder.name for run in matrix.pretraining()} >= {
        "virtex_bicaptioning_0",
        "icmlm_tfm_0",
        "loctex_0",
    }


@pytest.mark.parametrize("captions", [5, 1])
def test_the_matrices_of_methods_give_every_method_the_same_captions(monkeypatch, captions):
    monkeypatch.chdir(ROOT)
    name = "scenes_methods" if captions == 5 else "scenes_one_caption"
    matrix = read_matrix(f"configs/benchmarks/{name}.yaml")
    for run in matrix.pretraining():
        caption = config_of(run.config, run.options).INPUT.CAPTION
        assert caption.PER_IMAGE == captions, run


def test_the_matrix_of_rates_gives_every_method_the_same_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    matrix = read_matrix("configs/benchmarks/scenes_rates.yaml")
    rates = defaultdict(list)
    for run in matrix.pretraining():
        solver = config_of(run.config, run.options).SOLVER
        rates[run.config].append((solver.BASE_LR, solver.MAX_ITER, solver.IMS_PER_BATCH))
    assert {*map(tuple, rates.values())} == {
        ((0.00075, 220, 64), (0.0015, 220, 64), (0.003, 220, 64))
    }
    methods = read_matrix("configs/benchmarks/scenes_methods.yaml")
    assert {*rates} == {run.config for run in methods.pretraining()}


OWN = """\
title: Mine
output: runs
protocols:
  mine:
    config: CONFIG
    fractions: [1.0]
    paper: Doe 2026
    section: sec. 4
    settings: "DIGITS"
    dataset_version: captioned scenes
    train_images: 12
  scenes-segm: detectron2/scenes_segm.yaml
starts: {random init: ""}
fractions: [0.5, 1.0]
seeds: [0]
published:
  - protocol: mine
    paper: Roe 2025
    source: arXiv:2501.00001
    table: Table 2
    how_sure: READ
    rows:
      - {start: rival, bbox: {AP: 12.5}}
"""


@pytest.fixture
def own(tmp_path):
    """Write a matrix with a protocol of its own, with changes, and read it."""
    config = tmp_path / "mine.yaml"
    config.write_text("_BASE_: detectron2/scenes_segm.yaml\nSOLVER: {BASE_LR: 0.0123}\n")
    digits = settings_digits(load_config(str(config)))

    def read_own(here="", there=""):
        text = OWN.replace(here, there) if here else OWN
        return read(tmp_path, text.replace("CONFIG", str(config)).replace("DIGITS", digits))

    return read_own


def test_a_matrix_defines_its_own_protocol_and_published_results(own):
    matrix = own()
    assert matrix.own_protocols["mine"].train_images == 12
    assert matrix.some_fractions == {"mine": (1.0,)}
    card = matrix.cards()["mine"]
    assert (card["protocol"], card["paper"]) == ("mine", "Doe 2026: sec. 4")
    assert "departs" not in card
    (result,) = matrix.published_by_record()
    assert (result.start, result.table) == ("rival", "Table 2")
    assert result.protocol == matrix.protocol_id("mine", 1.0) == "scenes-segm+SOLVER.BASE_LR=0.0123"


def test_published_results_of_an_own_protocol_do_not_stand_beside_a_departure(own):
    matrix = own("seeds: [0]", "seeds: [0]\noptions: {SOLVER.MAX_ITER: 9}")
    assert matrix.cards()["mine"]["protocol"] == "mine+SOLVER.MAX_ITER=9"
    (result,) = matrix.published_by_record()
    assert result.protocol != matrix.protocol_id("mine", 1.0)


def test_published_results_may_be_in_a_file_of_their_own(own, tmp_path):
    head, rows = OWN.split("published:\n")
    (tmp_path / "rows.yaml").write_text(rows)
    assert own(rows, f"  {tmp_path / 'rows.yaml'}").published == own().published


@pytest.mark.parametrize(
    ("here", "there", "line", "message"),
    [
        ("  mine:", "  scenes-segm-frozen:", 4, "is a protocol of virtex_det already .*catalog"),
        ('"DIGITS"', "12345678", 9, r'settings of mine are 12345678, but .* are "[0-9a-f]{8}"'),
        (
            '    settings: "DIGITS"\n',
            "",
            4,
            'settings of mine are missing, (?s:.*)write settings: "',
        ),
        ("    paper: Doe 2026\n", "", 4, "missing required field `paper`"),
        ("train_images: 12", "train_images: twelve", 11, "field train_images: Expected `int"),
        ("- protocol: mine", "- protocol: mien", 17, "no protocol mien; the nearest: mine"),
        ("how_sure: READ", "how_sure: MEM", 21, "how_sure is MEM"),
        ("{AP: 12.5}", "{AP: 125}", 23, "metrics of bbox in percent"),
    ],
)
def test_a_slip_in_an_own_protocol_or_result_is_named_with_its_line(
    own, here, there, line, message
):
    with pytest.raises(UserError, match=rf"matrix.yaml, line {line}: (?s:.*){message}"):
        own(here, there)


def test_a_config_with_the_settings_of_a_public_protocol_is_not_another(tmp_path):
    text = OWN.replace("CONFIG", "detectron2/scenes_segm.yaml")
    text = text.replace("DIGITS", protocols()["scenes-segm"].settings)
    with pytest.raises(UserError, match="line 4: .* has the settings of scenes-segm, so mine"):
        read(tmp_path, text)


def test_a_file_of_results_that_is_not_there_is_named(own):
    rows = OWN.split("published:\n")[1]
    with pytest.raises(UserError, match="no-such.yaml"):
        own(rows, "  no-such.yaml")


def test_imports_are_relative_to_the_matrix_and_go_to_each_run(tmp_path, plugins):
    (tmp_path / "mine.py").write_text(
        "from virtex_det import Role, register_config\n\n"
        "@register_config\n"
        "def add_keys(cfg):\n"
        "    cfg.MODEL.MINE = 1\n"
        "    return {'MODEL.MINE': Role.RECIPE}\n"
    )
    text = MATRIX.replace("options: {SOLVER.BASE_LR", "options: {MODEL.MINE: 2, SOLVER.BASE_LR")
    matrix = read(tmp_path, f"{text}imports: mine.py\n")
    assert matrix.config("scenes-segm").MODEL.MINE == 2
    for run in matrix.runs():
        after = dict(pairwise(run.command()))
        assert after["--import"] == str(tmp_path / "mine.py")


def test_a_matrix_of_a_run_folder_imports_nothing(tmp_path):
    for name in ("config.yaml", "model_final.pth"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"asks to import .*mine.py(?s:.*)--import"):
        read(tmp_path, f"{MATRIX}imports: [mine.py]\n")
