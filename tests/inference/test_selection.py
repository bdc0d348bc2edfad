"""Which detections are kept: by score, by class, and how many; the model's limits give way."""

import numpy as np
import pytest

import virtex_det as vd
from virtex_det.errors import UserError
from virtex_det.inference.selection import Selection


@pytest.fixture
def photo(scenes):
    return next((scenes / "val").glob("*.png"))


@pytest.fixture
def everything(detector_run, photo):
    """All that the model finds in a picture."""
    found = vd.Detector(detector_run, maximum=10_000)(photo)
    assert len({*found.names}) > 2
    return found


def test_a_least_score_for_all_and_one_for_a_class(detector_run, photo, everything):
    name = everything.names[0]
    middle = float(np.median(everything.scores))
    kept = vd.Detector(detector_run, threshold=middle, thresholds={name: 1.0}, maximum=10_000)(
        photo
    )
    expected = (everything.scores >= middle) & (np.array(everything.names) != name)
    assert kept.scores.tolist() == everything.scores[expected].tolist() and len(kept)


def test_a_least_score_is_reached_below_the_models_own(detector_run, photo, everything):
    own = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.99}
    assert not len(vd.Detector(detector_run, overrides=own)(photo))
    everywhere = vd.Detector(detector_run, overrides=own, threshold=0.0, maximum=10_000)(photo)
    assert everywhere.scores.tolist() == everything.scores.tolist()
    name = everything.names[0]
    of_one = vd.Detector(detector_run, overrides=own, thresholds={name: 0.0}, maximum=10_000)
    assert {*of_one(photo).names} == {name}  # the others keep the model's own


def test_the_best_of_the_classes_asked_for_are_kept(detector_run, photo, everything):
    wanted = sorted({*everything.names} - {everything.names[0]})[:2]
    everywhere = {"TEST.DETECTIONS_PER_IMAGE": 10_000}
    kept = vd.Detector(detector_run, overrides=everywhere, classes=wanted, maximum=5)(photo)
    isin = np.isin(everything.names, wanted)
    assert kept.scores.tolist() == everything.scores[isin][:5].tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": 1.5}, "The threshold is 1.5; expected a score from 0 to 1"),
        ({"threshold": float("nan")}, "The threshold is nan"),
        ({"thresholds": {"star": -1}}, "The threshold of the class star is -1"),
        ({"maximum": 0}, "expected at least 1 detection"),
        ({"maximum": 1.5}, "The maximum is 1.5; expected at least 1 detection"),
        ({"maximum": True}, "The maximum is True"),
        ({"threshold": "0.5"}, "The threshold is '0.5'; expected a score from 0 to 1"),
        ({"thresholds": {"star": None}}, "The threshold of the class star is None"),
        ({"thresholds": {3: 0.5}}, "thresholds is {3: 0.5}; expected scores by class"),
        ({"thresholds": [0.5]}, r"thresholds is \[0.5\]; expected scores by class"),
        ({"classes": "star"}, "classes is 'star'; expected a list of names"),
        ({"classes": [3]}, r"classes is \[3\]; expected a list of names"),
        ({"classes": None}, "classes is None; expected a list of names"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        Selection(**given).check()


def test_numbers_of_numpy_are_numbers():
    Selection(np.float32(0.5), {"star": np.float64(0.25)}, {"star"}, np.int64(3)).check()


def test_a_class_that_is_none_is_refused_on_one_screen():
    known = [f"class {number}" for number in range(1000)]
    with pytest.raises(UserError, match=r"no class 'clas 7'.\nDid you mean class 7") as error:
        Selection(classes=["clas 7"]).check_names(known)
    assert len(str(error.value)) < 1000
    with pytest.raises(UserError, match="have no names"):
        Selection(classes=["person"]).check_names([])
