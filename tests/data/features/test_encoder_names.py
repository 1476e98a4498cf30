"""Encoders are told apart by letters and digits alone."""

import pytest

from d2l_study.data.features.encoder_names import are_other_encoders


@pytest.mark.parametrize(
    "one, other, expected",
    [("UNI-v1", "uni_v1", False), ("uni v1", "UniV1", False), ("uni_v1", "uni_v2", True), ("ж", "я", True),
     ("-", "+", True), ("", "uni_v1", False), ("uni_v1", "", False)],
)  # fmt: skip
def test_which_names_are_of_other_encoders(one, other, expected):
    assert are_other_encoders(one, other) is expected
