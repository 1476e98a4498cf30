"""Requests for one trial: a few steps on a few bags of MNIST, or a model that is trained and kept, to label with."""

from few_digits import digits

from d2l_study.data import MnistBags
from d2l_study.learning import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest


def make_trial_request(root, replicates=(0, 1), keep_weights="none", checkpoint_every=0, **teacher):
    data = MnistBags(num_bags=6, mean_bag_size=3, test_bags=20, root=str(digits()), verify=False).resolved()
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


def train_vector_pair(root, teacher_id, student_id, data):
    """Train and keep a small teacher of vectors, and a student of it."""
    teacher = TeacherConfig(extractor="mlp", feature_width=16, steps=60, eval_every=20)
    student = StudentConfig(network="mlp", feature_width=16, augment="none", steps=60, eval_every=20)
    train_kept_model(root, teacher_id, data, teacher=teacher)
    train_kept_model(root, student_id, data, (teacher_id,), teacher=teacher, student=student)


def link_synthetic_images(folder):
    """`folder/images`: the synthetic colon images that training wrote to the cache `folder/cache`."""
    (written,) = (folder / "cache").glob("colon_synthetic-images-*[0-9a-f]")
    (folder / "images").symlink_to(written)
