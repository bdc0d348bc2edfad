"""Adding config keys of a plugin, each with its role for a run."""

from collections.abc import Iterator, Mapping
from typing import Any

from virtex_det.config.added import FUNCTIONS, AddKeys, below, forget_results
from virtex_det.config.defaults import get_cfg
from virtex_det.config.nodes import leaves
from virtex_det.config.renames import OLD_NAMES
from virtex_det.config.roles import ROLES, Role
from virtex_det.errors import UserError

# The other roles are for keys that the package itself knows.
ROLES_OF_PLUGINS = (Role.RECIPE, Role.RUN, Role.EVALUATION, Role.REPORT, Role.MACHINE)


def register_config(function: AddKeys) -> AddKeys:
    """Add the config keys of a plugin; ``load_config`` and ``get_cfg`` then have them.

    Args:
        function: adds keys with their defaults to the config it is given, and returns the role of
            each key or of a whole new section: RECIPE (in the protocol's id, refused on resume),
            RUN (refused on resume), EVALUATION (in the id, applied on resume), REPORT or MACHINE
            (applied on resume). It is called for each config that is made.

    Returns:
        The function, so that this is a decorator.

    Raises:
        UserError: a key has no role, or clashes with one that is there.

    Example:
        >>> from virtex_det import Role, register_config
        >>> @register_config  # doctest: +SKIP
        ... def add_keys(cfg):
        ...     cfg.MODEL.MY_TASK = CfgNode({"TEMPERATURE": 0.07})
        ...     return {"MODEL.MY_TASK": Role.RECIPE}
    """
    before, cfg = dict(leaves(get_cfg())), get_cfg()
    roles = function(cfg)
    if not isinstance(roles, Mapping):
        raise UserError(
            f"The function of register_config returned {roles!r:.80}; expected the roles of its "
            'keys, such as {"MODEL.MY_TASK": Role.RECIPE}.'
        )
    if faults := [*_faults(before, dict(leaves(cfg)), roles)]:
        raise UserError("\n".join(faults[:4]))
    FUNCTIONS.append(function)
    ROLES.update(roles)
    forget_results()
    return function


def _faults(
    before: Mapping[str, Any], now: Mapping[str, Any], roles: Mapping[str, Any]
) -> Iterator[str]:
    for key, value in before.items():
        if key not in now:
            yield f"The function of register_config removes {key}, which exists. Rename its keys."
        elif type(now[key]) is not type(value) or now[key] != value:
            yield (
                f"The function of register_config sets {key}, which exists with the default "
                f"{value!r:.80}. Give its key another name, or set {key} in a config."
            )
    new = [key for key in now if key not in before]
    for key in new:
        if key in OLD_NAMES:
            yield f"{key} is an old name of {', '.join(OLD_NAMES[key])}. Give it another name."
        if not below(key, roles):
            yield f'{key} has no role. Return one for it, such as {{"{key}": Role.RECIPE}}.'
    for key, role in roles.items():
        if not any(below(name, [key]) for name in new):
            yield f"{key} has a role, but the function of register_config adds no such key."
        elif any(below(name, [key]) for name in before):
            yield f"{key} has a role, but it has keys that exist. Name only new keys or sections."
        if role not in ROLES_OF_PLUGINS:
            names = ", ".join(f"Role.{role.name}" for role in ROLES_OF_PLUGINS)
            yield f"The role of {key} is {role!s:.80}; expected one of {names}."
