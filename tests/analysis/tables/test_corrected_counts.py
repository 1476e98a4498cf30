"""How many comparisons Holm's correction counts, and captions say that it does."""

import numpy as np
import pytest
from make_rows import make_rows

from analysis.tables.comparison import compare


def test_captions_count_the_comparisons_that_holm_corrects():
    """Equal differences have no p of the t test: the others are corrected for their own number."""
    plain, rng = [0.75] * 6, np.random.default_rng(0)
    equal = [("a", [0.875] * 6)]
    others = [(name, [0.75 + 0.1 * v for v in rng.random(6)]) for name in ("b", "c")]

    def text_of(arms):
        rows = make_rows([({"method": m, "num_bags": 50}, v) for m, v in [("none", plain), *arms]], replicates=6)
        made = compare(rows)
        return " ".join(made.text(explain=True).split()), made

    text, made = text_of(equal + others)
    assert "p, and p after Holm over 2 (t) and 3 (Wilcoxon) of 3 comparisons." in text
    assert "Holm: corrected over 2 (t) and 3 (Wilcoxon) of 3 comparisons of this table; the others have no p." in text
    (smallest,) = {one.p_holm[0] / one.tests[0].p for one in made.found if one.row.value in "bc"} - {1.0}
    assert smallest == pytest.approx(2)
    assert "0.0312 at 6 pairs, after Holm over this table 0.0938" in text
    text, _ = text_of(others)
    assert (
        "p after Holm over 2 comparisons." in text and "Holm: corrected over the 2 comparisons of this table." in text
    )
    text, _ = text_of(equal)
    assert "p after Holm over 0 (t) and 1 (Wilcoxon) of 1 comparison." in text
