import numpy as np
import pytest

from virtex_det.evaluation.reference import numpy_float_alias


def test_the_alias_is_there_inside_and_gone_after_an_error():
    had_it = "float" in vars(np)
    with pytest.raises(RuntimeError), numpy_float_alias():
        assert np.float is float
        raise RuntimeError
    assert ("float" in vars(np)) == had_it
