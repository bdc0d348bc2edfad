"""The hash of a config: equal for two evaluations that measure the same, wherever the run is."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from virtex_det.config.data_names import portable_leaves
from virtex_det.config.roles import Role, role_of

# A run keeps copies of its files, and its load report has the hash of the weights it started from.
_OF_PLACE = (Role.MACHINE, Role.FILE)


def config_sha256(content: Mapping[str, Any]) -> str:
    """Return the hash of a config without paths of the run and without keys of the machine.

    Data that are named by where they lie have their short names in it. A run that was moved, or
    continues on another machine, keeps its hash.

    Args:
        content: a config, or the content of a run's ``config.yaml``.
    """
    kept = {key: value for key, value in portable_leaves(content).items() if not _is_of_place(key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _is_of_place(key: str) -> bool:
    try:
        return key == "MODEL.WEIGHTS" or role_of(key) in _OF_PLACE
    except KeyError:  # of another version
        return False
