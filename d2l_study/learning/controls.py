"""The reference rows that every student is compared with in tables, each with a difference of its own.

`matched`: the teacher trained for as many instance visits as teacher and student together (`matched_teacher`).
`no_soft_labels`: the student from its teacher's weights, which learns nothing else from it
(`StudentConfig.without_soft_labels`).
"""

CONTROLS = ("matched", "no_soft_labels")
"""Their stages."""

CONTROL_IDS = tuple(f"{stage}_id" for stage in CONTROLS)
"""The columns in which the rows of a student name the config_id of each, where the study has it."""
