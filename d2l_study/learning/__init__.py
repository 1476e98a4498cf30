"""Teacher, regularizers, metrics: torch and numpy only, so that the science runs without the machinery.

from d2l_study.data import MnistBags
from d2l_study.learning import TeacherConfig, fit_teacher

data = MnistBags(num_bags=50)
replicates = [data.replicate(data.load_pool(), r, base_seed=1) for r in range(5)]
print([t.metrics["bag_auc"] for t in fit_teacher(TeacherConfig(lambda_adv=1.0), replicates)])
"""

from importlib import import_module
from typing import TYPE_CHECKING

from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.part_config import TrainingPart
from d2l_study.learning.student_config import StudentConfig

if TYPE_CHECKING:
    from d2l_study.learning.cross_fitting import cross_fitted_targets, part_targets
    from d2l_study.learning.distillation import TeacherTargets, teacher_targets
    from d2l_study.learning.prediction import Compute
    from d2l_study.learning.references import attention_reference, fit_reference
    from d2l_study.learning.student import fit_student
    from d2l_study.learning.teacher import fit_teacher
    from d2l_study.learning.training_parts import without_part
    from d2l_study.learning.training_result import FittedStudent, FittedTeacher

_LAZY = {
    "Compute": "prediction", "FittedTeacher": "training_result", "fit_teacher": "teacher",
    "TeacherTargets": "distillation", "teacher_targets": "distillation",
    "cross_fitted_targets": "cross_fitting", "part_targets": "cross_fitting",
    "without_part": "training_parts",
    "FittedStudent": "training_result", "fit_student": "student",
    "fit_reference": "references", "attention_reference": "references",
}  # fmt: skip


def __getattr__(name: str) -> object:
    # The configuration is read where torch is not needed (validating a space), so torch waits for its first use.
    if name in _LAZY:
        return getattr(import_module(f"d2l_study.learning.{_LAZY[name]}"), name)
    raise AttributeError(name)


__all__ = [
    "Compute", "FittedStudent", "FittedTeacher", "StudentConfig", "TeacherConfig", "TeacherTargets", "TrainingPart",
    "attention_reference", "cross_fitted_targets", "fit_reference", "fit_student", "fit_teacher", "part_targets",
    "teacher_targets", "without_part",
]  # fmt: skip
