"""Values that nothing reads are found by the flat values of a configuration alone."""

import pytest

from d2l_study.study.space.idle_values import idle_names, without_idle_values

TEACHER = {"dataset": "mnist", "num_bags": 50, "mean_bag_size": 10, "lambda_adv": 0.0, "epsilon": 2.0, "steps": 100,
           "eval_every": 10, "select": "auc"}  # fmt: skip


def test_epsilon_is_read_with_r_adv_alone():
    assert "epsilon" in idle_names(TEACHER)
    assert "epsilon" not in idle_names(TEACHER | {"lambda_adv": 1.0})
    assert without_idle_values(TEACHER | {"lambda_adv": 1.0})["epsilon"] == 2.0
    assert "epsilon" not in without_idle_values(TEACHER) and without_idle_values(TEACHER)["lambda_adv"] == 0


@pytest.mark.parametrize("student", [{}, {"lambda_distill": 1.0, "student_steps": 50, "student_epochs": 12}])
def test_a_length_in_epochs_is_kept_beside_its_steps(student):
    """As plans and rows have it, where options take one of the two."""
    values = TEACHER | {"steps": 288, "epochs": 24, "min_steps": 200, "eval_every": 29} | student
    assert "epsilon" in idle_names(values)
    assert "epsilon" not in idle_names(values | {"lambda_adv": 1.0})


def test_keys_of_the_student_and_of_unlabelled_bags_count_too():
    assert "temperature" in idle_names(TEACHER | {"lambda_distill": 0.0, "temperature": 3.0, "alpha": 1.0})
    assert "temperature" not in idle_names(TEACHER | {"lambda_distill": 1.0, "temperature": 3.0})
    assert "unlabelled_bags" in idle_names(TEACHER | {"unlabelled_bags": 100})
    assert "unlabelled_bags" not in idle_names(TEACHER | {"unlabelled_bags": 100, "lambda_adv": 1.0})


@pytest.mark.parametrize("values", [{"lambda_adv": "often", "epsilon": 2.0}, {"dataset": "unheard of"}, {}])
def test_what_is_not_understood_counts_as_read(values):
    assert "epsilon" not in idle_names({"epsilon": 2.0, "lambda_adv": 1.0} | values)
