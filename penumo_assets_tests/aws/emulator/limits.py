"""What an account may have, and how often it may ask."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from penumo_assets_tests.aws.emulator.rules import ApiError


@dataclass
class Limits:
    """An account's limits.

    Attributes
    ----------
    quotas : instances by the quota's name; of types that it does not name a new account's: 4, of GPUs none.
    requests_per_second : of one operation; more are throttled. None: as many as come.
    unseen_seconds : for how long after its creation a job cannot be described.
    """

    quotas: dict[str, float] = field(default_factory=dict)
    requests_per_second: float | None = None
    unseen_seconds: float = 0.0
    _lock: Any = field(default_factory=Lock, repr=False)
    _asked: dict[str, list[float]] = field(default_factory=dict, repr=False)

    def require_rate(self, operation: str) -> None:
        """Raises ApiError if the operation was asked for too often within the last second."""
        now = time.monotonic()
        with self._lock:
            recent = [at for at in self._asked.get(operation, []) if now - at < 1]
            self._asked[operation] = [*recent, now]
        if self.requests_per_second is not None and len(recent) >= self.requests_per_second:
            raise ApiError("ThrottlingException", "Rate exceeded")

    def require_quota(self, kind: str, wanted: dict[str, Any], spot: bool, running: Iterable[dict[str, Any]]) -> None:
        """Raises ApiError, in AWS's words, if a job asks for more instances than those that run leave."""
        if kind not in {"Processing", "Training"}:
            return
        instance_type, delta = wanted["InstanceType"], wanted["InstanceCount"]
        name = f"{instance_type} for {'spot ' if spot else ''}{kind.lower()} job usage"
        limit = self.quotas.get(name, 0 if instance_type.removeprefix("ml.")[0] in "gp" else 4)
        used = sum(item["InstanceCount"] for item in running if item["InstanceType"] == instance_type)
        if used + delta > limit:
            raise ApiError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{name}' is {limit:.0f} Instances, with current utilization of "
                f"{used} Instances and a request delta of {delta} Instances. Please use AWS Service Quotas to request "
                "an increase for this quota. If AWS Service Quotas is not available, contact AWS support to request "
                "an increase for this quota.",
            )
