"""What `run` and `plan` print before any work: what is there, what will be done, and how long it will take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from d2l_study.data import FeatureBags
from d2l_study.errors import counted, listed
from d2l_study.learning.part_config import PART_TEACHER
from d2l_study.options import value_text
from d2l_study.study.commands.device_line import show_device
from d2l_study.study.commands.plan_table import Listing, in_order, list_configurations, show_totals
from d2l_study.study.commands.prepare_study import PreparedStudy, known_concurrency
from d2l_study.study.commands.search_plan_summary import estimate_search, show_search, start_point_lines
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.plan.cost import Estimate, earlier_rows, estimate, expected_visits, human_seconds
from d2l_study.study.space.idle_values import without_idle_values
from d2l_study.study.space.recipes import recipe_values
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.unread_values import unread_values
from d2l_study.terminal import NO_BREAK, print_wrapped

if TYPE_CHECKING:
    from pandas import DataFrame

QUICKER, WORTH_A_LINE = 2 / 3, 60.0
"""The processor is named where it should need at most this part of the GPUs' time, of at least so many seconds."""

_MOST_VALUES = 10
"""Numbers of an axis that are listed one by one."""


def show_plan(study: PreparedStudy, listing: Listing = Listing.NONE) -> Estimate:
    """Print what the study will train and how long that will take. listing: what is said of each configuration."""
    space, plan, options = study.space, study.plan, study.options
    concurrent, rows = known_concurrency(study), earlier_rows(study.folder.storage)
    predicted = _predicted(study, rows)
    quicker = quicker_processor_text(study, rows, predicted)
    if study.search is not None:
        show_search(study, duration_text(concurrent, predicted), listing)
        show_warnings(study, quicker)
        return predicted
    todo = plan.trials(options.limit)
    print_wrapped(f"{study.name}: {space.description}")
    axes = []
    read = [without_idle_values(c.values) for c in plan.configurations]
    for name in plan.configurations[0].varied:
        values = {own[name]: None for own in read if name in own}
        if len(values) > 1:
            axes.append(f"{name} ∈ {_values_text(in_order(values))}".replace(" ", NO_BREAK))
    if space.pairs:
        teachers, students = (list(dict.fromkeys(pair[i] for pair in space.pairs.values())) for i in (0, 1))
        arms = f"teachers: {', '.join(teachers)}; students: {', '.join(students)}"
        arms += f"; references: {', '.join(space.references)}" if space.references else ""
    else:
        arms = f"methods: {', '.join(dict.fromkeys(c.method for c in plan.configurations))}"
    print_wrapped(arms, "  ")
    if axes:
        print_wrapped(f"varied: {'; '.join(axes)}", "  ")
    if space.recipe != "defaults":
        print_wrapped(f"recipe: {space.recipe} (values of keys that the space does not give: keys recipe)", "  ")
    elif not space.names_recipe:
        print_wrapped("recipe: none is named, so keys have the settings of version 1 (recipe: robust names others, "
                      "under which nearly every run converges)", "  ")  # fmt: skip
    for line in start_point_lines(space):
        print(f"  {line}")
    runs = sum(len(t.replicates) for t in todo)
    print_wrapped(
        f"{counted(plan.trials_total, 'trial')} × {counted(plan.replicates, 'replicate')} = "
        f"{counted(plan.runs_total, 'run')}: "
        f"{plan.runs_done} there already, {runs} to run now"
        + (f" (--limit: {counted(len(todo), 'trial')})" if options.limit is not None else ""),
        "  ",
    )
    show_device(study)
    print_wrapped(duration_text(concurrent, predicted), "  ")
    show_warnings(study, quicker)
    if listing.lists(len(plan.configurations)):
        list_configurations(plan)
    elif listing is not Listing.NONE:
        show_totals(study, predicted)
    return predicted


def _show_lengths(study: PreparedStudy) -> None:
    """Print how many steps the lengths in epochs are."""
    planned = study.plan.configurations or configurations(study.space, study.checksum)
    for section, prefix in (("teacher", ""), ("student", "student_")):
        by_floor: dict[int, list[Mapping[str, Any]]] = {}
        for c in planned:
            if c.values.get(f"{prefix}epochs") is not None:
                by_floor.setdefault(c.values[f"{prefix}min_steps"], []).append(c.values)
        for least, found in sorted(by_floor.items()):
            epochs, steps = (
                _values_text(sorted({values[f"{prefix}{key}"] for values in found})).strip("{}")
                for key in ("epochs", "steps")
            )
            floor = f", at least {least} steps" if least != 1 else ""
            each = " of each generation" if section == "student" else ""
            print(f"  {section}: {epochs} epochs{floor}: {steps} steps{each}")
            usual = recipe_values(study.space.recipe, section, found[0].get("dataset"), {}).get("min_steps", 1)
            if least == 1 < usual:
                print_wrapped(f"note: the recipe's floor, min_steps {usual}, goes with its own epochs; give "
                              f"{section}.min_steps beside epochs to have one", "  ")  # fmt: skip


def _show_references(study: PreparedStudy) -> None:
    """Print how many instances students, teachers and the references that are trained will see; and beside which
    students a row does not stand that is asked for."""
    references, planned = study.space.references, study.plan.configurations
    trained = {"teacher": "teachers", "student": "students", "matched": "matched teachers"}
    trained |= {name: name for name in ("no_soft_labels", "no_teacher", "bag_label", "oracle")}
    if trained.keys() & set(references):
        texts = []
        for stage, name in trained.items():
            found = sorted({round(expected_visits(c)) for c in planned if c.stage == stage})
            if found:
                texts.append(f"{name} {found[0]:,}" + (f" to {found[-1]:,}" if len(found) > 1 else ""))
        print_wrapped(f"instances that training sees, each as often as it is drawn: {', '.join(texts)}", "  ")
    students = [c for c in planned if c.stage == "student"]
    alone = {
        "attention": ("no teacher pools by attention, so that no row attention",
                      [c.label for c in students if "attention" not in c.values["pooling"]]),
        "smoothed": ("without neighbours, so that no smoothed teacher",
                     [c.label for c in students if not c.values["neighbours"]]),
        "no_soft_labels": ("without soft labels or without the teacher's weights (student.start), so that no row "
                           "no_soft_labels", [c.label for c in students if "no_soft_labels" not in c.controls]),
    }  # fmt: skip
    for reference, (why, labels) in alone.items():
        if reference in references and labels:
            print_wrapped(f"{why} stands beside them: {listed(dict.fromkeys(labels), 4)}", "  ")
    for start, reference in (("fresh", "no_teacher"), ("teacher", "no_soft_labels")):
        twins = [c.label for c in students if c.values["lambda_distill"] == 0 and c.values["start"] == start]
        if twins and any(c.stage == reference for c in planned):
            print_wrapped(f"note: lambda_distill 0 with start {start} is what {reference} trains, so the same may be "
                          f"trained twice: {listed(dict.fromkeys(twins), 4)}", "  ")  # fmt: skip


def _show_part_teachers(study: PreparedStudy) -> None:
    """Print how many part teachers there are, and how much each sees: a part less of the bags, in as many steps."""
    planned = study.plan.configurations or configurations(study.space, study.checksum)
    teachers = {c.config_id: c for c in planned if c.stage == PART_TEACHER}
    if teachers:
        visits = sorted({round(expected_visits(c)) for c in teachers.values()})
        seen = f"{visits[0]:,}" + (f" to {visits[-1]:,}" if len(visits) > 1 else "")
        print_wrapped(
            f"cross-fitting: {counted(len(teachers), 'part teacher')} among the trials, in no table; each sees {seen} "
            "instances in training, which matched teachers do not count",
            "  ",
        )


def _values_text(values: Sequence[Any]) -> str:
    """The values of an axis in a line: all of them, or of many numbers, as a search draws them, the range."""
    if len(values) > _MOST_VALUES and all(isinstance(value, int | float) for value in values):
        return f"{len(values)} values from {value_text(min(values), 4)} to {value_text(max(values), 4)}"
    return f"{{{', '.join('null' if value is None else value_text(value) for value in values)}}}"


def _predicted(study: PreparedStudy, rows: DataFrame | None) -> Estimate:
    """How long what is left of a study takes. rows: earlier results."""
    space, concurrent = study.space, known_concurrency(study) or 1
    if study.search is not None:
        return estimate_search(study, rows, concurrent)
    grouped = space.schedule == "none"
    return estimate(study.plan, rows, concurrent, space.resources, study.options.limit, grouped)


def quicker_processor_text(study: PreparedStudy, rows: DataFrame | None, predicted: Estimate) -> str:
    """A sentence where a study took the GPUs by itself, and all cores of this machine should need far less time, as for
    students where there are many cores: they take turns on a GPU. Else empty. predicted: on the GPUs."""
    space, resources = study.space, study.space.resources
    by_itself = resources.kind == "cuda" and resources.device == "auto" and "gpus" not in space.given_resources
    if not by_itself or study.options.address != "local" or resources.precision == "bfloat16":  # slow on a processor
        return ""
    kept = {key: value for key, value in resources.to_dict().items() if key in space.given_resources}
    on_cores = Resources(**{**kept, "device": "cpu"})
    other = dataclasses.replace(study, space=dataclasses.replace(space, resources=on_cores))
    seconds = _predicted(other, rows).seconds
    if predicted.seconds < WORTH_A_LINE or seconds > QUICKER * predicted.seconds:
        return ""
    at_once = counted(known_concurrency(other) or 1, "trial")
    return (f"the processor should need less time, about {human_seconds(seconds)} with {at_once} at a time: "
            "--set resources.device=cpu")  # fmt: skip


def show_warnings(study: PreparedStudy, quicker: str = "") -> None:
    """Print how long epochs are and what the data are, and warn of what is allowed, but will hardly be meant. quicker:
    as of `quicker_processor_text`."""
    space = study.space
    if quicker:
        print_wrapped(f"note: {quicker}", "  ")
    _show_lengths(study)
    _show_references(study)
    _show_part_teachers(study)
    for text in study.data_summary:
        print_wrapped(text.lstrip(), " " * (2 + len(text) - len(text.lstrip())))
    asked, nodes = space.resources.cpus, study.machines.nodes if study.machines is not None else ()
    for cpus in (node.cpus for node in nodes if node.cpus < asked):
        print(f"  warning: a trial asks for {asked:g} CPUs (resources.cpus), more than the {cpus:g} of this machine")
    if space.resources.gpus > 1:
        print(f"  warning: a trial asks for {space.resources.gpus:g} GPUs (resources.gpus) and computes on one; the "
              "others stay idle. Expected at most 1")  # fmt: skip
    patches = any(not isinstance(c.sections["data"], FeatureBags) for c in study.plan.configurations)
    known = study.machines is not None
    if (space.resources.pack or 1) > 1 and space.resources.kind == "cpu" and known and patches:
        print(f"  warning: resources.pack: {space.resources.pack} is slow on a CPU, where replicates of image patches "
              "are trained faster by turns; it is meant for a GPU")  # fmt: skip
    if unread := unread_values(space):
        print_wrapped(f"note: nothing reads {listed(unread, 6)}", "  ")
    for text in study.undefined_metrics:
        print(f"  warning: {text}")


def duration_text(concurrent: int | None, predicted: Estimate) -> str:
    """The predicted time in words, for so many trials at a time; None: on a cluster that has not been joined yet."""
    if concurrent is None:
        return f"as many trials at a time as the cluster holds; one after the other {predicted.text}"
    return f"{counted(concurrent, 'trial')} at a time: {predicted.text}"


def show_existing_results(study: PreparedStudy) -> None:
    """Print what is there already: of a study that goes on its own runs, of a new one those of other studies."""
    plan, folder = study.plan, study.folder
    if not folder.exists() and plan.runs_done:
        there = [(c, r) for c, done in plan.done.items() for r in done]
        makers = {str(row.get("made_by")) for row in folder.storage.map(lambda run: folder.ledger.row(*run), there)}
        print(f"{study.name}: {counted(plan.runs_done, 'run')} reused, made by {listed(sorted(makers))} (--fresh would "
              "train them again)")  # fmt: skip
    if folder.exists() and study.search is None:
        partly = sum(bool(plan.done.get(t.configuration.config_id)) for t in plan.trials())
        some = f", {partly} in part" if partly else ""
        going = "resuming" if plan.trials() else "nothing left to run"
        begun = [(t.configuration.config_id, r) for t in plan.trials() for r in t.replicates]
        owner = study.name if study.options.fresh else None
        if at := sum(folder.storage.map(lambda run: folder.ledger.has_checkpoint(*run, owner), begun)):
            going += f", {counted(at, 'run')} from a checkpoint"
        print(f"{study.name}: {plan.trials_done} of {plan.trials_total} trials done{some}, {going}")
