"""Keys of plugins: with roles they are keys like ours; clashes are refused by name."""

import pytest
from detectron2.config import CfgNode

from virtex_det.config import Role, get_cfg, load_config, register_config
from virtex_det.config.identity import config_sha256
from virtex_det.config.roles import role_of
from virtex_det.errors import UserError
from virtex_det.protocols.matching import protocol_id

CONFIG = "detectron2/scenes_segm.yaml"


def add_keys(cfg):
    cfg.MODEL.MY_TASK = CfgNode({"TEMPERATURE": 0.07, "WORDS": ("a",)})
    cfg.MODEL.MY_TASK.CHUNK = 8
    return {"MODEL.MY_TASK": Role.RECIPE, "MODEL.MY_TASK.CHUNK": Role.MACHINE}


def test_keys_are_read_from_overrides_and_checked_like_ours(plugins):
    register_config(add_keys)
    cfg = load_config(overrides=["MODEL.MY_TASK.TEMPERATURE", "1", "MODEL.MY_TASK.WORDS", "('b',)"])
    assert cfg.MODEL.MY_TASK == {"TEMPERATURE": 1.0, "WORDS": ("b",), "CHUNK": 8}
    with pytest.raises(UserError, match=r"MODEL.MY_TASK.CHUNK is 1.5"):
        load_config(overrides={"MODEL.MY_TASK.CHUNK": 1.5})
    with pytest.raises(UserError, match=r"nearest: MODEL.MY_TASK.TEMPERATURE"):
        load_config(overrides={"MODEL.MY_TASK.TEMPERATUR": 1})


def test_roles_decide_what_is_in_the_protocol_id_and_in_the_hash(plugins):
    before = protocol_id(load_config(CONFIG))
    register_config(add_keys)
    assert role_of("MODEL.MY_TASK.TEMPERATURE") is Role.RECIPE
    cfg = load_config(CONFIG)
    recipe = load_config(CONFIG, {"MODEL.MY_TASK.TEMPERATURE": 0.5})
    machine = load_config(CONFIG, {"MODEL.MY_TASK.CHUNK": 4})
    assert protocol_id(cfg) == protocol_id(machine) == before
    assert protocol_id(recipe) == f"{before}+MODEL.MY_TASK.TEMPERATURE=0.5"
    assert config_sha256(cfg) == config_sha256(machine) != config_sha256(recipe)


def without_roles(cfg):
    cfg.MODEL.MINE, cfg.MODEL.OTHER = 1, 2
    return {"MODEL.MINE": Role.RUN}


def of_ours(cfg):
    cfg.SOLVER.BASE_LR = 1.0
    return {}


def over_ours(cfg):
    cfg.MODEL.TEXTUAL = CfgNode({"MINE": 1})
    return {"MODEL.TEXTUAL.MINE": Role.RUN}


def whole_section(cfg):
    cfg.MODEL.MINE = 1
    return {"MODEL": Role.RUN}


def old_name(cfg):
    cfg.MODEL.BF16 = True
    return {"MODEL.BF16": Role.RECIPE}


def not_a_role(cfg):
    cfg.MODEL.MINE = 1
    return {"MODEL.MINE": "recipe"}


def kept_for_us(cfg):
    cfg.MODEL.MINE = ""
    return {"MODEL.MINE": Role.FILE}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (without_roles, r"MODEL.OTHER has no role.*Role.RECIPE"),
        (lambda cfg: None, r"returned None; expected the roles"),
        (of_ours, r"sets SOLVER.BASE_LR, which exists with the default 0.001"),
        (over_ours, r"removes MODEL.TEXTUAL.VOCAB_SIZE"),
        (whole_section, r"MODEL has a role, but it has keys that exist"),
        (old_name, r"MODEL.BF16 is an old name of SOLVER.AMP.ENABLED"),
        (not_a_role, r"role of MODEL.MINE is recipe; expected one of Role.RECIPE"),
        (kept_for_us, r"role of MODEL.MINE is Role.FILE; expected one of"),
        (lambda cfg: {"MODEL.GONE": Role.RUN}, r"MODEL.GONE has a role.*adds no such key"),
    ],
)
def test_a_key_that_clashes_or_has_no_role_is_refused_and_nothing_is_added(
    plugins, function, message
):
    before = get_cfg()
    with pytest.raises(UserError, match=message):
        register_config(function)
    assert get_cfg() == before


def test_the_keys_of_another_plugin_are_taken(plugins):
    register_config(add_keys)

    def again(cfg):
        cfg.MODEL.MY_TASK.CHUNK = 16
        return {"MODEL.MY_TASK.CHUNK": Role.RUN}

    with pytest.raises(UserError, match="sets MODEL.MY_TASK.CHUNK, which exists"):
        register_config(again)
