"""The reference rows that every student is compared with in tables, each with a difference of its own.

`matched`: the teacher trained for as many instance visits as teacher and student together (`matched_teacher`).
`no_soft_labels`: the student from its teacher's weights, which learns nothing else from it
(`StudentConfig.without_soft_labels`).
"""

CONTROLS = ("matched", "no_soft_labels")
"""Their stages."""

OWN_REFERENCES = (*CONTROLS, "smoothed", "no_teacher")
"""The stages of which a student has a row of its own, where several students make several: with its own network and
noise, or over its own neighbours."""

CONTROL_IDS = tuple(f"{stage}_id" for stage in OWN_REFERENCES)
"""The columns in which the rows of a student name the config_id of each, where the study has it."""
