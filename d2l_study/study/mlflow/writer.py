"""Brings the runs of a study in an MLflow store to the state of its pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from d2l_study.credentials import masked
from d2l_study.errors import UserError
from d2l_study.study.mlflow.address import one_line
from d2l_study.study.mlflow.other_studies import other_study_text
from d2l_study.study.mlflow.page import PARENT, Page
from d2l_study.study.mlflow.pages import StudyPages
from d2l_study.study.mlflow.store import StoredRun, StudyRuns
from d2l_study.study.mlflow.tags import DIGEST

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""Errors of MLflow that another attempt does not change."""

MOST_REFUSALS = 3
"""Refusals after which a run is given up. The first ones may be about a run that a person has just deleted."""


class PageWriter:
    """Writes the pages of a study that have changed.

    experiment_tags: of the study's experiment; planned: tells the config_ids of the study's plan, runs of others, which
    were pruned, are deleted; known: whether the study's root has a configuration: where the store has runs of others,
    they are of another root's study of the same name, and nothing is written over them; live: a driver is at work on
    the study, so that runs with the status RUNNING are its own; ours: whether the study is still this driver's, else
    nothing more is written. opened: the runs have been found; written: keys of runs that were written; progress: a
    count that grows with each write; deleted: how many runs of others were deleted.
    """

    def __init__(
        self,
        pages: StudyPages,
        uri: str,
        *,
        experiment_tags: Mapping[str, str] | None = None,
        planned: Callable[[], Set[str]] | None = None,
        known: Callable[[str], bool] = lambda config: True,
        live: bool = False,
        ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self.uri, self.pages = masked(uri), pages
        self.experiment_tags, self.planned, self.known = experiment_tags or {}, planned, known
        self._runs = StudyRuns(uri, pages.study)
        self._tidied, self._ours = live, ours
        self.opened, self.written = False, set[str]()
        self.progress = self.deleted = 0
        self._refusals: dict[str, int] = {}
        self._away: str | None = None
        self._lost: str | None = None

    @property
    def stored(self) -> dict[str, StoredRun]:
        """Key -> the run in the store, as found when it was opened and as written since."""
        return self._runs.stored

    @property
    def altered(self) -> set[str]:
        """Keys of runs to which anything was written: those that were not as their pages already."""
        return self._runs.altered

    @property
    def complete(self) -> bool:
        """Whether nothing that was to be written has been given up."""
        return self._lost is None and not self.pages.points_dropped

    @property
    def problems(self) -> str | None:
        """What is wrong, in one line, or None. It goes once a store that was away is up to date again."""
        if self._away is None and self.pages.points_dropped:
            return f"MLflow at {self.uri} was away for long: it lacks parts of curves, which `sync` brings"
        return self._away or self._lost

    @property
    def url(self) -> str | None:
        """The address of the study's page, if the store is opened and on a server."""
        return self._runs.url() if self.opened else None

    def open(self) -> None:
        """Find the runs of the study. The first time, end the runs of dead drivers and delete those of other plans.
        Raises what MLflow raises."""
        before = {key: run.run_id for key, run in self.stored.items()}
        self._runs.open()
        moved = {key for key, run in self.stored.items() if before.get(key, run.run_id) != run.run_id}
        if not self._tidied:  # before anything of ours is RUNNING there
            left = self.stored.keys() - self.planned() - {PARENT} if self.planned is not None else set[str]()
            foreign = sorted(key for key in left if not self.known(key))
            if foreign and not self._runs.restored:  # what was deleted is nobody's
                raise UserError(other_study_text(self.pages.study, len(foreign)))
            self._runs.end_stale_runs()
            self.deleted = self._runs.delete_runs(left)
            self.pages.incomplete.update(self.stored.keys() - {PARENT})
            self._tidied = True
        self._runs.describe(self.experiment_tags)
        self.opened = True
        # Deleted in the store, and made anew; or another driver's run stays, which was there first.
        anew = (self.written - self.stored.keys()) | (self.written & moved)
        self.written -= anew
        self.pages.write_anew(sorted(anew))

    def flush(self) -> bool:
        """Write all that has changed. False if the store could not take it: what was not written is kept."""
        if not self._ours():
            with self.pages.lock:
                self.pages.changed.clear()
            return True
        try:
            if not self.opened:
                self.open()
            self._write_changed()
        except Exception as error:
            self.opened = False  # find the runs again: a request that failed may have been carried out
            self._away = f"MLflow at {self.uri}: {one_line(error)}; the results are in the ledger"
            return False
        self._away = None
        return True

    def _write_changed(self) -> None:
        """First the states of all runs, so that large artifacts hold up no curve; then artifacts and digests, of the
        study's own page last, with the models."""
        waiting: list[tuple[str, Page]] = []
        try:
            with self.pages.lock:
                keys = sorted(self.pages.changed, key=lambda k: k != PARENT)  # a child needs its parent's id
            for key in keys:
                page = self._take(key)
                waiting.append((key, page))
                try:
                    self._runs.write(key, page)
                except Exception as error:
                    if self._is_temporary(key, page, error):
                        raise
                    waiting.pop()
                    continue
                self.written.add(key)
                self.progress += 1
                page.reports = []
            waiting.sort(key=lambda item: item[0] == PARENT)
            while waiting:
                key, page = waiting[0]
                for problem in self._runs.write_artifacts(key, page):
                    self._lost = self._lost or problem
                page.artifacts = {}
                self.progress += 1
                if page.models is not None:
                    for found in self._runs.write_models(page.models):
                        self._lost = self._lost or found
                        self.progress += 1
                waiting.pop(0)
        except BaseException:
            for key, page in waiting:
                self.pages.put_back(key, page)
            raise

    def _take(self, key: str) -> Page:
        """What is to be written of a page now: nothing but its state if the store has it all, and all points of its
        curves if some may be lacking there."""
        page, curves = self.pages.take(key)
        stored = self.stored.get(key)
        if page.digest is not None and stored is not None and stored.tags.get(DIGEST) == page.digest:
            page.reports, page.artifacts = [], {}  # it is all there
        elif page.digest is not None and key in self.pages.incomplete:
            if curves is None:
                page.digest = None
            else:
                try:
                    page.reports = list(curves())
                    self.pages.incomplete.discard(key)
                except (OSError, ValueError, KeyError) as error:
                    page.digest = None
                    self._lost = self._lost or f"{page.name}: its curves could not be read: {one_line(error)}"
        if page.digest is not None and stored is not None:
            page.tags[DIGEST] = stored.tags.get(DIGEST, "")  # the digest itself comes last
        return page

    def _is_temporary(self, key: str, page: Page, error: Exception) -> bool:
        """False if the store refuses this run for good: then it must not hold up the others."""
        if getattr(error, "error_code", None) not in REFUSALS:
            return True
        self._refusals[key] = self._refusals.get(key, 0) + 1
        if self._refusals[key] < MOST_REFUSALS or key == PARENT:
            return True
        self._lost = self._lost or f"MLflow at {self.uri} refuses {page.name}: {one_line(error)}"
        return False
