"""What the page of a configuration shows, but for its artifacts."""

from d2l_study.study.mlflow.configuration_page import run_name


def test_names_tell_runs_apart_and_leave_out_what_is_off():
    values = {"num_bags": 100, "mean_bag_size": 10, "lambda_adv": 0.1, "lambda_ent": 0.0, "epsilon": 4.0}
    varied = ["num_bags", "lambda_adv", "lambda_ent", "epsilon"]
    assert run_name("vat", "teacher", values, varied) == "vat n=100 K=10 λ_adv=0.1 ε=4"
    assert run_name("vat", "student", values) == "student vat n=100 K=10"


def test_the_name_of_a_run_leaves_out_what_nothing_reads():
    plain = {"num_bags": 100, "mean_bag_size": 10, "lambda_adv": 0.0, "epsilon": 2.0}
    assert run_name("none", "teacher", plain, ["num_bags", "lambda_adv", "epsilon"]) == "none n=100 K=10"
