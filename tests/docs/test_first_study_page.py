"""What the page of the first study says: its Python runs, and its time is the one that README and front page give."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_python_of_the_page_trains_few_steps_and_prints_a_line_for_each_replicate(capsys):
    torch.set_num_threads(1)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "first_study.md").read_text(), re.DOTALL)
    assert "steps=200" in code
    exec(code.replace("steps=200", "steps=2").replace("num_bags=50", "num_bags=10, test_bags=20"), {})
    areas = [float(word) for word in capsys.readouterr().out.split()]
    assert len(areas) == 6 and all(0 <= area <= 1 for area in areas)


def test_all_pages_give_the_first_study_the_same_time():
    for page in ("README.md", "docs/index.md"):
        assert "runs a first study: some six minutes on two cores" in (ROOT / page).read_text(), page
