from virtex_det.config import get_cfg, leaves
from virtex_det.config.help import key_comments, key_help
from virtex_det.engine import argument_parser


def test_help_names_the_main_keys_with_their_meaning_and_where_all_of_them_are():
    shown = argument_parser("What it is for.").format_help()
    assert (
        shown.index("What it is for.")
        < shown.index("path to config file")
        < shown.index("MODEL.FOLLOW_WEIGHTS")
    )
    assert "SOLVER.BASE_LR" in shown and "virtex_det/config/defaults.py" in shown


def test_every_key_of_the_help_exists():
    known = dict(leaves(get_cfg()))
    lines = [
        line.split()
        for line in key_help().splitlines()
        if line.startswith("  ") and line[2].isupper()
    ]
    assert len(lines) > 20
    assert all(words[0].strip(",") in known for words in lines)


def test_meanings_are_the_comments_of_the_defaults():
    meanings = key_comments()
    assert meanings["DATASETS.SUBSET_SEED"] == "Seed of the choice: another seed takes another part"
    assert meanings["SOLVER.AMP.DTYPE"] == "Data type of mixed precision (AMP.ENABLED)"
