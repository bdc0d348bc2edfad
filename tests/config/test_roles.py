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
def test_every_key_has_a_role(key):
    assert isinstance(role_of(key), Role)


@pytest.mark.parametrize("key", OURS)
def test_a_key_that_virtex_det_adds_has_its_own_entry_or_its_nodes(key):
    assert any(f"{key}.".startswith(f"{prefix}.") for prefix in ROLES if prefix not in SECTIONS)


def test_keys_by_role_are_all_keys_once():
    assert sorted(keys_of(*Role)) == sorted(KEYS)
    assert {*keys_of(Role.KIND)} == {"DATALOADER.MAPPER", "MODEL.META_ARCHITECTURE"}
    assert set(keys_of(Role.FILE)) == {*FILES, "MODEL.TEXTUAL.VOCAB_SIZE"}


def test_a_matrix_compares_the_keys_that_decide_a_cells_result():
    compared = keys_of(*IN_CELL)
    decide = "SEED MODEL.WEIGHTS DATASETS.SUBSET_FILE SOLVER.MAX_ITER TEST.AUG.ENABLED"
    assert {*decide.split()} <= {*compared}
    from_weights = {"INPUT.FORMAT", "MODEL.PIXEL_STD", "MODEL.WEIGHTS_FORMAT"}
    of_machine = {"OUTPUT_DIR", "DATALOADER.NUM_WORKERS"}
    assert not (from_weights | {*FILES} | of_machine) & {*compared}
    assert {*OF_MATRIX} <= {*KEYS}


def test_plain_leaves_have_jsons_types():
    content = {"INPUT": {"CAPTION": {"CROP_SCALE": (0.2, 1.0)}}, "SEED": 3, "GLOBAL": {}}
    assert plain_leaves(get_cfg())["INPUT.CAPTION.CROP_SCALE"] == [0.2, 1.0]
    assert plain_leaves(content) == {"INPUT.CAPTION.CROP_SCALE": [0.2, 1.0], "SEED": 3}


def test_a_new_kind_of_keys_needs_a_role():
    with pytest.raises(KeyError):
        role_of("NEW_NODE.KEY")


def test_every_entry_is_of_a_key_that_exists():
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
