"""A request for one trial: a few steps on a few bags of MNIST."""

from d2l_study.data import MnistBags
from d2l_study.learning import TeacherConfig
from d2l_study.study.space.resources import Resources
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
