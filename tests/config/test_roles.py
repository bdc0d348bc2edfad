import pytest
from detectron2.config import get_cfg as get_detectron2_cfg

from virtex_det.config import get_cfg, leaves, plain_leaves
from virtex_det.config.roles import (
    FILES,
    IN_CELL,
    OF_MATRIX,
    ROLES,
    Role,
    is_read,
    keys_of,
    role_of,
)

KEYS = [key for key, _ in leaves(get_cfg())]
SECTIONS = ("MODEL", "INPUT", "DATASETS", "DATALOADER", "SOLVER", "TEST")
DETECTRON2S = {key for key, _ in leaves(get_detectron2_cfg())}
OURS = [key for key in KEYS if key not in DETECTRON2S]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_detectron2_and_of_ours_has_a_role(key):
    assert isinstance(role_of(key), Role)


@pytest.mark.parametrize("key", OURS)
def test_a_key_of_ours_has_an_entry_that_was_written_for_it_or_its_node(key):
    assert any(f"{key}.".startswith(f"{prefix}.") for prefix in ROLES if prefix not in SECTIONS)


def test_keys_by_role_are_all_keys_once():
    assert sorted(keys_of(*Role)) == sorted(KEYS)
    assert {*keys_of(Role.KIND)} == {"DATALOADER.MAPPER", "MODEL.META_ARCHITECTURE"}
    assert set(keys_of(Role.FILE)) == {*FILES, "MODEL.TEXTUAL.VOCAB_SIZE"}


def test_what_a_matrix_compares_of_a_cell():
    compared = keys_of(*IN_CELL)
    assert {
        "SEED",
        "MODEL.WEIGHTS",
        "DATASETS.SUBSET_FILE",
        "SOLVER.MAX_ITER",
        "TEST.AUG.ENABLED",
    } <= {*compared}
    # The weights may set these, the run keeps these files, and these are of the machine.
    left_out = {
        "INPUT.FORMAT",
        "MODEL.PIXEL_STD",
        "MODEL.WEIGHTS_FORMAT",
        *FILES,
        "OUTPUT_DIR",
        "DATALOADER.NUM_WORKERS",
    }
    assert not left_out & {*compared}
    assert {*OF_MATRIX} <= {*KEYS}


def test_values_are_as_json_has_them_in_a_config_and_in_its_file():
    cfg, content = (
        get_cfg(),
        {"INPUT": {"CAPTION": {"CROP_SCALE": (0.2, 1.0)}}, "SEED": 3, "GLOBAL": {}},
    )
    assert plain_leaves(cfg)["INPUT.CAPTION.CROP_SCALE"] == [0.2, 1.0]
    assert plain_leaves(content) == {"INPUT.CAPTION.CROP_SCALE": [0.2, 1.0], "SEED": 3}


def test_a_new_kind_of_keys_needs_a_role():
    with pytest.raises(KeyError):
        role_of("NEW_NODE.KEY")


def test_every_role_is_of_a_key_that_exists():
    assert [
        prefix for prefix in ROLES if not any(f"{key}.".startswith(f"{prefix}.") for key in KEYS)
    ] == []


def test_the_longest_prefix_decides():
    assert role_of("SOLVER.BASE_LR") is role_of("TEST.PRECISE_BN.NUM_ITER") is Role.RECIPE
    assert role_of("TEST.AUG.MAX_SIZE") is role_of("DATASETS.TEST") is Role.EVALUATION
    assert (
        role_of("DATASETS.TRAIN") is Role.RECIPE and role_of("DATASETS.TRAIN_FRACTION") is Role.RUN
    )


def test_a_key_whose_node_is_switched_off_is_not_read():
    cfg = get_cfg()
    assert not is_read(cfg, "SOLVER.LOOKAHEAD.STEPS") and is_read(cfg, "SOLVER.LOOKAHEAD.ENABLED")
    cfg.SOLVER.LOOKAHEAD.ENABLED = True
    assert is_read(cfg, "SOLVER.LOOKAHEAD.STEPS")


def test_pretraining_reads_what_a_detector_does_not():
    cfg = get_cfg()
    assert not is_read(cfg, "MODEL.TEXTUAL.DROPOUT") and not is_read(
        cfg, "INPUT.CAPTION.MAX_LENGTH"
    )
    cfg.MODEL.META_ARCHITECTURE, cfg.DATALOADER.MAPPER = "BicaptioningModel", "CaptionMapper"
    assert is_read(cfg, "MODEL.TEXTUAL.DROPOUT") and is_read(cfg, "INPUT.CAPTION.MAX_LENGTH")
