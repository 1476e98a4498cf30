"""Records prove themselves: whatever bit of one is another, it is not read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2l_study.study.ledger import records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text().filter(lambda key: key != records.DIGEST), VALUES, max_size=5)


@given(OBJECTS)
@settings(max_examples=60, deadline=None)
def test_a_record_is_json_and_comes_back_as_it_went(value):
    data = records.encode(value)
    assert records.decode(data) == value
    assert {k: v for k, v in json.loads(data).items() if k != records.DIGEST} == value


def test_no_flipped_bit_and_no_cut_is_taken():
    data = records.encode({"row": {"bag_auc": 0.9, "cause": None, "status": "done"}, "files": {}, "replicate": 3})
    for at in range(len(data)):
        assert records.decode(data[:at]) is None
        for bit in range(8):
            assert records.decode(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]) is None


def test_of_a_sealed_checkpoint_neither():
    data = records.encode_bytes(b"a checkpoint")
    assert (
        records.decode_bytes(data) == b"a checkpoint"
        and records.decode_bytes(b"PK\3\4 of version 1") == b"PK\3\4 of version 1"
    )
    for at in range(len(data)):
        assert records.decode_bytes(data[:at]) is None
        for bit in range(8):
            assert records.decode_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]) is None


@pytest.mark.parametrize("data", [b"", b"{", b"null", b'{"row": {}}', b"[" * 200_000, b'{\n"a": ' * 100_000, b"\xff"])
def test_what_is_no_record_is_none(data):
    assert records.decode(data) is None


def test_records_of_version_1_are_taken_as_they_are():
    assert records.decode(json.dumps({"a": 1}, indent=1).encode()) == {"a": 1}
    assert records.decode(json.dumps([{"a": 1}], indent=1).encode()) == [{"a": 1}]
