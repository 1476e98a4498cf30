"""A trial that the ledger or a plan knows by its id, to be run again in this process (`trial`, `reproduce`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from d2l_study.command_line import command_text
from d2l_study.data import DATASETS, FeatureBags
from d2l_study.errors import DamagedError, UserError, listed, nearest
from d2l_study.study.ledger import provenance
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.storage import Storage
from d2l_study.study.ledger.studies import list_studies
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.precision import known_resources
from d2l_study.study.space.keys import STACKED
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.stored_models import named_trials
from d2l_study.study.trial.study_of_trial import study_of_trial, where_data_are
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune.machine import this_machine, why_no_gpu


def find_configuration(storage: Storage, identity: str) -> str:
    """The config_id that begins with `identity`; `UserError` if there is none, or more than one."""
    known = [name for head in storage.list("results") for name in storage.list(f"results/{head}")]
    found = [name for name in known if identity and name.startswith(identity)]
    found = found or (_restored(storage, identity) if identity else [])
    if len(found) == 1:
        return found[0]
    if not found:
        near = nearest(identity, map(trial_id, known))
        there = f"; there are {named_trials(Ledger(storage), sorted(known))}" if known and not near else ""
        raise UserError(f"--id {identity!r}: no trial of that id in a study under {storage.root}{near}{there} "
                        f"(`{command_text('status STUDY')}` lists them)")  # fmt: skip
    raise UserError(f"--id {identity!r}: {len(found)} trials begin so: {', '.join(map(trial_id, found[:5]))}")


def _restored(storage: Storage, identity: str) -> list[str]:
    """The planned configurations whose ids begin so, of all studies. What the ids stand for is made from the study's
    space, and written to the ledger if it is not there and whole."""
    from d2l_study.study.search.restore_configurations import restore_configurations

    found: set[str] = set()
    for name in list_studies(storage):
        folder = StudyFolder(storage, name)
        try:
            wanted = {entry["config_id"] for entry in folder.plan() if entry["config_id"].startswith(identity)}
        except (DamagedError, FileNotFoundError):
            continue
        if wanted:
            found |= restore_configurations(folder, wanted)
    return sorted(found)


def _content(ledger: Ledger, config: str) -> dict[str, Any]:
    """What a configuration's id stands for, made again from the space of its study if that is lost or damaged;
    `UserError` if no study has it any more."""
    try:
        return ledger.read_config(config)
    except (DamagedError, FileNotFoundError):
        _restored(ledger.storage, config)
    return ledger.known_config(config)


def request_for_record(ledger: Ledger, config: str, replicates: Sequence[int]) -> TrialRequest:
    """The request for replicates of a configuration that the ledger knows, to be run in this process. Weights are kept,
    whatever the space says: a teacher's students may need them.

    It is in the name of a study that has the configuration in its plan, computes as this does, and reads the data where
    this has them. If no study has it any more, it is in the name of the one that had."""
    resolved = _content(ledger, config)
    folder = study_of_trial(ledger, config, resolved)
    resolved = where_data_are(ledger, config, resolved)
    study = folder.name if folder is not None else str(resolved.get("study", f"trial-{trial_id(config)}"))
    resources = Resources() if folder is None else known_resources(folder)
    return TrialRequest(
        root=str(ledger.storage.root), study=study, config_id=config, label=trial_id(config), stage=resolved["stage"],
        sections=resolved["sections"], replicates=tuple(replicates), base_seed=resolved["base_seed"],
        data_checksum=resolved["data_checksum"], resources=resources.to_dict(), keep_weights="all",
        code_version=provenance.code_version(), teachers=tuple(resolved.get("teachers", ())),
        once_fresh=folder is not None and folder.fresh_of is not None,
    )  # fmt: skip


def is_in_a_study(ledger: Ledger, request: TrialRequest) -> bool:
    """Whether the study in whose name a trial is run has it in its plan."""
    return study_of_trial(ledger, request.config_id, {"study": request.study}) is not None


def check_committed(ledger: Ledger, request: TrialRequest, committed: Collection[int]) -> None:
    """`UserError` if a run of a trial that no study has in its plan is not committed: it would be nobody's."""
    if new := [replicate for replicate in request.replicates if replicate not in committed]:
        raise UserError(
            f"trial {trial_id(request.config_id)}: no study under {ledger.storage.root} has it in its plan, so "
            f"replicate {listed(new)} would be no study's; {request.study!r}, which had it, was removed or has changed;"
            " give its `run` command again"
        )


def use_recorded_settings(request: TrialRequest, row: Mapping[str, Any]) -> None:
    """Take the device, the precision and the threads of a committed run, so that the same kind of machine gives the
    same result."""
    gpus = 1.0 if kind_of_device(row) == "cuda" else 0.0
    request.resources.update({"gpus": gpus, "precision": row["precision"], "threads": int(row["threads"])})


def kind_of_device(row: Mapping[str, Any]) -> str:
    """The kind of device that a committed run was computed on, `cpu` or `cuda`."""
    return str(row.get("device") or "cpu").partition(":")[0]


def find_device(request: TrialRequest) -> str:
    """Where a request asks for a GPU, see whether this machine has one that PyTorch can use, and take the processor if
    not. Returns a line on it; empty where no GPU is asked for."""
    if not request.resources["gpus"]:
        return ""
    why = why_no_gpu(this_machine(), 0)
    if why:
        request.resources["gpus"] = 0.0
        return f"the trial was for a GPU, and computes on the processor: {why}"
    request.resources["checkpoint_every"] = None  # by time, as `run` has it on a GPU
    return "computes on the GPU"


def is_stacked(request: TrialRequest, kind: str) -> bool | None:
    """Whether the runs of a request are trained as stacks on a kind of device; None where their bags decide."""
    if request.stage not in STACKED:
        return False
    pack = request.resources["pack"]
    if kind == "cpu" and pack is None and issubclass(DATASETS[request.sections["data"]["dataset"]], FeatureBags):
        return None
    from d2l_study.learning.prediction import Compute

    return Compute(kind, pack=pack).packs
