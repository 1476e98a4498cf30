"""The environment variables that Ray reads when it is imported."""

from __future__ import annotations

import os


def set_ray_environment() -> None:
    """Set them before Ray is imported: no telemetry, no boxes, no log files per trial. What the user has set stays."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "1",
        "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that was left behind would start another Ray
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "900",  # it ends this process then, results or not; we are quicker
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # its state, which nobody reads, grows with the trials
        "TUNE_MAX_PENDING_TRIALS_PG": "auto",
    }.items():
        os.environ.setdefault(name, value)
