"""What goes wrong on purpose."""

from dataclasses import dataclass
from threading import Lock


@dataclass
class ApiFault:
    """The next ``times`` requests of an operation are answered with an error."""

    operation: str
    code: str
    message: str
    times: int

    @property
    def status(self) -> int:
        return 500 if self.code.startswith("Internal") else 400


@dataclass(frozen=True)
class JobScript:
    """What happens to one job.

    Attributes
    ----------
    failure : the job fails with this reason before its instance starts.
    hang : the program never ends; only stopping the job, or its longest runtime, ends it.
    interrupt_at_checkpoint : the spot instance is taken as soon as a checkpoint has been written, once.
    late_log_seconds : every third line of the log arrives this long after the job has ended.
    repeat_log_events : reading the log gives every event twice.
    delay_seconds : how long the job takes to get its instance.
    """

    failure: str = ""
    hang: bool = False
    interrupt_at_checkpoint: bool = False
    late_log_seconds: float = 0.0
    repeat_log_events: bool = False
    delay_seconds: float = 0.0


class FaultPlan:
    """Faults that wait for their request or their job."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._api: list[ApiFault] = []
        self._jobs: list[tuple[str, JobScript]] = []

    def fail(self, operation: str, code: str, message: str, times: int) -> None:
        with self._lock:
            self._api.append(ApiFault(operation, code, message, times))

    def clear(self) -> None:
        with self._lock:
            self._api.clear()
            self._jobs.clear()

    def script(self, name_part: str, script: JobScript) -> None:
        with self._lock:
            self._jobs.append((name_part, script))

    def take_api(self, operation: str) -> ApiFault | None:
        with self._lock:
            for fault in self._api:
                if fault.operation == operation and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def take_script(self, name: str, default: JobScript) -> JobScript:
        """The first script that waits for a job of this name; it is used up."""
        with self._lock:
            for entry in self._jobs:
                if entry[0] in name:
                    self._jobs.remove(entry)
                    return entry[1]
        return default
