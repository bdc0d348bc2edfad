"""Every key that changes on resume is applied or refused by name; there is no third way."""

import pytest

from virtex_det.config import get_cfg, leaves, load_config, plain_leaves
from virtex_det.config.precision import computes_in_bfloat16
from virtex_det.config.roles import FIXED, Role, is_read, role_of
from virtex_det.engine.run_folder import follow_run
from virtex_det.errors import UserError

CONFIGS = {
    "detector": "detectron2/scenes_segm.yaml",
    "pretraining": "pretrain/scenes_bicaptioning.yaml",
}
KEYS = [key for key, _ in leaves(get_cfg()) if key not in ("OUTPUT_DIR", "VERSION")]


@pytest.fixture(scope="module", params=CONFIGS)
def config(request):
    return load_config(CONFIGS[request.param])


@pytest.fixture
def changed(config, monkeypatch, tmp_path):
    """Changes a key of a resumed run; returns the config before and after the change."""
    own = config.clone()
    own.defrost()
    own.OUTPUT_DIR = str(tmp_path)
    monkeypatch.setattr(
        "virtex_det.engine.run_folder.read_run_config", lambda folder: plain_leaves(own)
    )

    def changed(key):
        cfg = own.clone()
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        node[name] = another(node[name])
        cfg.freeze()
        return own, cfg

    return changed


def another(value):
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list | tuple):
        return type(value)([*value, value[0]] if value else [1])
    return value + "x" if isinstance(value, str) else 1 if value is None else value + 1


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_changes_on_resume_is_applied_or_refused(changed, key):
    began, cfg = changed(key)
    if role_of(key) in FIXED and is_read(cfg, key):
        with pytest.raises(UserError, match=rf"began with other values:\n  {key} "):
            follow_run(cfg, only_evaluates=False)
    else:
        followed = plain_leaves(follow_run(cfg, only_evaluates=False))
        assert followed == plain_leaves(cfg) != plain_leaves(began)


@pytest.mark.parametrize("key", KEYS)
def test_an_evaluation_alone_keeps_what_was_trained_and_applies_or_refuses_the_rest(changed, key):
    began, cfg = changed(key)
    of_training = key.startswith(("SOLVER.", "TEST.PRECISE_BN.")) or key == "MODEL.WEIGHTS"
    changes_arithmetic = computes_in_bfloat16(began) != computes_in_bfloat16(cfg)
    if of_training and not changes_arithmetic:
        assert plain_leaves(follow_run(cfg, only_evaluates=True)) == plain_leaves(began)
    elif role_of(key) in FIXED and is_read(cfg, key):
        with pytest.raises(UserError, match=rf"began with other values:\n  {key} "):
            follow_run(cfg, only_evaluates=True)
    else:
        assert plain_leaves(follow_run(cfg, only_evaluates=True)) == plain_leaves(cfg)


def test_what_decides_the_weights_is_fixed():
    """The keys of the solver, the input and the model that are free change no trained number."""
    free = {key for key in KEYS if role_of(key) not in FIXED and key.startswith("SOLVER.")}
    expected = (
        "SOLVER.MAX_ITER SOLVER.STEPS SOLVER.CHECKPOINT_PERIOD SOLVER.CHECKPOINT_ON_SIGNAL "
        "SOLVER.REFERENCE_WORLD_SIZE SOLVER.PROCESS_TIMEOUT"
    )
    assert free == set(expected.split())
    assert role_of("SOLVER.MAX_ITER") is Role.SCHEDULE
