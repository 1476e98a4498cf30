"""Tracking in MLflow: a view of a study that can be made again from the ledger; training never waits for it.

The driver alone writes, through one `Tracker`. The driver changes pages in memory, which makes no request and raises
no error of MLflow's. A thread of the tracker brings the store up to date every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from d2l_study.study.mlflow.page import Content
from d2l_study.study.mlflow.pages import MAX_BUFFERED, StudyPages
from d2l_study.study.mlflow.study_page import experiment_tags
from d2l_study.study.mlflow.writer import PageWriter

LONGEST_PAUSE = 60.0
CLOSING_ATTEMPTS = 3
CLOSING_SECONDS, AWAY_SECONDS = 15.0, 5.0
"""How long the end of a study waits for the next answer of a store, and of one that was away at its start."""


class Tracker(StudyPages):
    """The pages of one study, written to MLflow by a thread while the study runs."""

    def __init__(
        self,
        uri: str,
        study: str,
        *,
        flush_seconds: float = 3.0,
        max_buffered: int = MAX_BUFFERED,
        ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """flush_seconds: between two writes; ours: as of `PageWriter`."""
        super().__init__(study, max_buffered)
        self.flush_seconds = flush_seconds
        self.writer = PageWriter(self, uri, ours=ours)
        self._swept = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(
        self,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        artifacts: Mapping[str, Content],
        *,
        varied: Sequence[str] = (),
        description: str = "",
        planned: Callable[[], Set[str]] | None = None,
        known: Callable[[str], bool] = lambda config: True,
    ) -> None:
        """Begin the study's own page (or take it up again), and the writing.

        varied: keys that get a column; description: of the study; planned, known: as of `PageWriter`.
        """
        self.writer.experiment_tags, self.writer.planned = experiment_tags(varied, description), planned
        self.writer.known = known
        self.begin_study(tags, params, artifacts)
        self._thread = threading.Thread(target=self._loop, name="mlflow-tracker", daemon=True)
        self._thread.start()

    def close(self, timeout: float = CLOSING_SECONDS) -> bool:
        """Write what is left and stop, waiting at most `timeout` seconds for the store to take the next run's state.
        False if something could not be written.

        Runs that were not finished end as KILLED.
        """
        self.end_running()
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            seen, deadline = -1, 0.0
            while self._thread.is_alive():
                if self.writer.progress != seen:  # a long backlog is written to its end, a store that hangs is left
                    seen, deadline = self.writer.progress, time.monotonic() + timeout
                if time.monotonic() > deadline:
                    return False
                self._thread.join(0.1)
        return not self.changed and self.writer.complete

    @property
    def problems(self) -> str | None:
        """What is wrong, in one line, or None. It goes once a store that was away is up to date again."""
        return self.writer.problems

    @property
    def url(self) -> str | None:
        """The address of the study's page, once it is known and if the store is on a server."""
        return self.writer.url

    def _loop(self) -> None:
        failures = 0
        while True:
            written = self.writer.flush()
            failures = 0 if written else failures + 1
            if self._closing.is_set():
                if written and not self.changed and not self._swept:
                    self._swept, self.writer.opened = True, False  # once more, so that no run is there twice
                    continue
                if not self.changed or failures > CLOSING_ATTEMPTS:  # a store that is away now is left to `sync`
                    return
                time.sleep(0.2 if failures else 0.0)
                continue
            pause = min(self.flush_seconds * 2 ** min(failures, 10), max(LONGEST_PAUSE, self.flush_seconds))
            self._wake.wait(pause)
