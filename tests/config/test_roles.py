import pytest

from virtex_det.config import get_cfg, leaves
from virtex_det.config.roles import ROLES, Role, is_read, role_of

KEYS = [key for key, _ in leaves(get_cfg())]


def test_every_key_has_a_role():
    assert all(isinstance(role_of(key), Role) for key in KEYS)


def test_a_new_kind_of_keys_needs_a_role():
    with pytest.raises(KeyError):
        role_of("NEW_NODE.KEY")


def test_every_role_is_of_a_key_that_exists():
    assert [prefix for prefix in ROLES if not any(f"{key}.".startswith(f"{prefix}.") for key in KEYS)] == []


def test_the_longest_prefix_decides():
    assert role_of("SOLVER.BASE_LR") is role_of("TEST.PRECISE_BN.NUM_ITER") is Role.RECIPE
    assert role_of("TEST.AUG.MAX_SIZE") is role_of("DATASETS.TEST") is Role.EVALUATION
    assert role_of("DATASETS.TRAIN") is Role.RECIPE and role_of("DATASETS.TRAIN_FRACTION") is Role.RUN


def test_a_key_whose_node_is_switched_off_is_not_read():
    cfg = get_cfg()
    assert not is_read(cfg, "SOLVER.LOOKAHEAD.STEPS") and is_read(cfg, "SOLVER.LOOKAHEAD.ENABLED")
    cfg.SOLVER.LOOKAHEAD.ENABLED = True
    assert is_read(cfg, "SOLVER.LOOKAHEAD.STEPS")


def test_pretraining_reads_what_a_detector_does_not():
    cfg = get_cfg()
    assert not is_read(cfg, "MODEL.TEXTUAL.DROPOUT") and not is_read(cfg, "INPUT.CAPTION.MAX_LENGTH")
    cfg.MODEL.META_ARCHITECTURE, cfg.DATALOADER.MAPPER = "BicaptioningModel", "CaptionMapper"
    assert is_read(cfg, "MODEL.TEXTUAL.DROPOUT") and is_read(cfg, "INPUT.CAPTION.MAX_LENGTH")
