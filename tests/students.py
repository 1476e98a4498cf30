"""Students and teachers in rows, for tests of what compares them."""


def as_students(rows):
    """The rows with the arm vat as a student of the arm none."""
    made = rows.copy()
    teacher = made.loc[made["method"] == "none", "config_id"].iloc[0]
    student = made["method"] == "vat"
    made["teacher_id"] = made["teacher_id"].astype(object)
    made.loc[student, ["stage", "teacher_id"]] = ["student", teacher]
    made["val_bag_auc"] = made["bag_auc"]
    made.attrs = rows.attrs
    return made


def student_minus_teacher(rows, method, num_bags, temperature=None, metric="instance_auc"):
    """Student minus teacher for each replicate, joined on the teacher's id and the replicate."""
    chosen = rows[(rows["method"] == method) & (rows["num_bags"] == num_bags)]
    if temperature is not None:
        chosen = chosen[chosen["temperature"] == temperature]
    both = chosen.merge(rows[["config_id", "replicate", metric]], left_on=["teacher_id", "replicate"],
                        right_on=["config_id", "replicate"], suffixes=("", "_of_teacher"))  # fmt: skip
    return (both[metric] - both[f"{metric}_of_teacher"]).dropna().to_numpy()
