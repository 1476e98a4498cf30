"""Requests for one trial: a few steps on a few bags of MNIST, or a model that is trained and kept, to label with."""

from d2l_study.data import MnistBags
from d2l_study.learning import TeacherConfig
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest


def make_trial_request(root, replicates=(0, 1), keep_weights="none", checkpoint_every=0, **teacher):
    data = MnistBags(num_bags=6, mean_bag_size=3, test_bags=20).resolved()
    config = TeacherConfig(**{"steps": 6, "eval_every": 2, "feature_width": 16, **teacher})
    return TrialRequest(
        root=str(root), study="s", config_id="ab" * 10, label="none", stage="teacher",
        sections={"data": data.to_dict(), "teacher": config.to_dict()}, replicates=replicates, base_seed=5,
        data_checksum=data.load_pool().checksum, resources=Resources(checkpoint_every=checkpoint_every).to_dict(),
        keep_weights=keep_weights, code_version="test",
    )  # fmt: skip


def train_kept_model(root, config_id, data, teachers=(), replicate=0, **sections):
    """Train one replicate without Ray and keep its weights: of the teacher that `sections` gives, or of a student of
    `teachers`."""
    request = TrialRequest(
        root=str(root), study="s", config_id=config_id, label="none", stage="student" if teachers else "teacher",
        sections={"data": data.to_dict(), **{name: section.to_dict() for name, section in sections.items()}},
        replicates=(replicate,), base_seed=5, data_checksum=data.load_pool().checksum,
        resources=Resources().to_dict(), keep_weights="all", code_version="test", teachers=teachers,
    )  # fmt: skip
    assert run_trial(request) == {replicate: "done"}
