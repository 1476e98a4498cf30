"""An invented study that figures of a metric are drawn from."""

import pytest
from make_study import make_study


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory):
    # Configurations 0–3 are none at K=10, 4–7 none at K=50, 8–11 vat at K=10, 12–15 vat at K=50.
    return make_study(
        tmp_path_factory.mktemp("runs"),
        num_bags=(50, 100, 200, 400),
        missing=((4, 0), *((9, r) for r in range(5))),
    ).rows()
