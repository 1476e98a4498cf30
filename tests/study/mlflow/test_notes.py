"""Every page of MLflow says what it shows, and a note that a person wrote stays."""

from make_study import make_distillation
from mlflow_runs import runs_of

from d2l_study.study.commands.sync import sync_mlflow
from d2l_study.study.mlflow.address import client
from d2l_study.study.mlflow.notes import NOTE


def test_pages_of_study_and_configurations_say_what_their_numbers_are(tmp_path, uri):
    folder = make_distillation(tmp_path, num_bags=(50,), teachers=("none",), students=("plain",), replicates=2)
    sync_mlflow(folder, uri, description="what it is about")
    (parent,), children = runs_of(uri, "distilled")
    store = client(uri)
    experiment = store.get_experiment(parent.info.experiment_id).tags[NOTE]
    assert experiment.startswith("what it is about\n\nEach run is one configuration") and "`report.html`" in experiment
    assert "`report.html`" in parent.data.tags[NOTE] and "best_val_bag_auc/ARM" in parent.data.tags[NOTE]
    assert "best_val_bag_auc/none" in parent.data.metrics
    notes = {run.info.run_name: run.data.tags[NOTE] for (run,) in children.values()}
    assert all("means over its replicates on test bags" in note and "`…/r003`" in note for note in notes.values())
    student = next(run for (run,) in children.values() if run.info.run_name.startswith("student"))
    teacher = next(run for (run,) in children.values() if run.info.run_name.startswith("none"))
    assert student.data.tags[NOTE].startswith("Learned from [none") and teacher.info.run_id in student.data.tags[NOTE]
    assert {"bag_auc_std", "bag_auc/r001"} <= student.data.metrics.keys()  # as the note has it


def test_a_note_of_a_person_stays(tmp_path, uri):
    folder = make_distillation(tmp_path, num_bags=(50,), teachers=("none",), students=("plain",), replicates=2)
    sync_mlflow(folder, uri)
    (parent,), children = runs_of(uri, "distilled")
    (child,), *_ = children.values()
    store = client(uri)
    for run in (parent, child):
        store.set_tag(run.info.run_id, NOTE, "looked at by hand")
    store.set_tag(child.info.run_id, "d2l.content", "old")  # its page is written again
    sync_mlflow(folder, uri)
    for run in (parent, child):
        assert store.get_run(run.info.run_id).data.tags[NOTE] == "looked at by hand"
    store.set_tag(child.info.run_id, NOTE, "Learned from [none](#/old).")  # of an earlier version
    store.set_tag(child.info.run_id, "d2l.content", "old")
    sync_mlflow(folder, uri)
    assert "One configuration" in store.get_run(child.info.run_id).data.tags[NOTE]
