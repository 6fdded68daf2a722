"""What predicting a cohort costs (cost.json beside the masks): as estimated before, and as it was in each command."""

from typing import Literal

from pydantic import Field

from medunet.base.record import Record


class CohortEstimate(Record):
    """Time, memory and disk of predicting a cohort, estimated from a few measured cases."""

    num_cases: int
    workers: int
    efficiency: float  # of the workers together, 1 if none slows another
    seconds: float  # from the first to the last mask
    seconds_range: tuple[float, float] | None  # 95%; None of a single measured case
    load_seconds: float  # of a worker, until its first case begins
    main_bytes: int  # most memory of a worker
    card_bytes: int  # of a worker; 0 on a CPU
    cards: int
    disk_bytes: int
    measured_cases: int
    backend: str
    precision: str
    device: str
    processor: str
    threads: int

    @property
    def worker_seconds_a_case(self) -> float:
        """Seconds of a worker for a case."""
        return self.seconds * self.workers / self.num_cases


class CommandCost(Record):
    """What one command took that predicted cases into the folder, or a part of it that one process did."""

    seconds: float  # from the first to the last mask, without loading the model
    cases: int
    failed: int
    seconds_by_part: dict[str, float]  # summed over cases; parts of different cases run at the same time
    windows: int
    windows_reused: int
    peak_bytes: (
        int | None
    )  # of the process that held the model, since it started; None if the system does not tell
    written_bytes: int  # masks, maps and index
    workers: int = 1
    device: str
    processor: str
    threads: int


class CohortCost(Record):
    """The estimate, if one was made for this folder, and the truth, command by command."""

    schema_: Literal["medunet.cost/1"] = Field("medunet.cost/1", alias="schema")
    estimate: CohortEstimate | None = None
    commands: tuple[CommandCost, ...] = ()

    @property
    def cases(self) -> int:
        """Predicted cases of all commands."""
        return sum(command.cases for command in self.commands)

    @property
    def worker_seconds(self) -> float:
        """Seconds that their workers took, added up."""
        return sum(command.seconds * command.workers for command in self.commands)
