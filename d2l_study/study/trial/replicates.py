"""The replicates that a configuration is trained on, from its sections.

data = DATASETS["mnist"](**sections["data"])
replicate = trained_replicate(sections, data.load_pool(), number=3, base_seed=1)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2l_study.data import DATASETS, Pool, Replicate
from d2l_study.learning.part_config import TrainingPart
from d2l_study.learning.training_parts import without_part


def trained_replicate(
    sections: Mapping[str, Mapping[str, Any]], pool: Pool, number: int, base_seed: int
) -> Replicate:  # fmt: skip
    """The replicate whose training bags a configuration sees: of a part teacher those outside of its part.

    sections: section -> key -> value, as a trial has them; pool: of the `data` section.
    """
    data = DATASETS[sections["data"]["dataset"]](**sections["data"])
    found = data.replicate(pool, number, base_seed)
    return without_part(found, TrainingPart(**sections["part"])) if "part" in sections else found
