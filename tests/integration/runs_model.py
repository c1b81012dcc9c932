"""The run state machine once more, as plain Python: what Postgres has to agree with after every transition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from waystation_db.rows import FINAL_STATUSES, CancelAction, FinalStatus, RestingStatus, RunStatus, ThreadStatus

MAX_CRASHES = 3


@dataclass
class ModelRun:
    """A run's row."""

    thread_id: str
    run_id: str
    status: RunStatus = "pending"
    attempt: int = 0
    crashes: int = 0
    wish: CancelAction | None = None
    expired: bool = False

    @property
    def is_active(self) -> bool:
        return self.status not in FINAL_STATUSES

    @property
    def is_last_chance(self) -> bool:
        return self.crashes > 0 and self.crashes + 1 >= MAX_CRASHES

    def start(self) -> None:
        self.status, self.attempt, self.expired = "running", self.attempt + 1, False


@dataclass
class ModelThread:
    """A thread's row with its runs, oldest first."""

    thread_id: str
    resting: RestingStatus = "idle"
    runs: dict[str, ModelRun] = field(default_factory=dict[str, ModelRun])

    @property
    def active(self) -> list[ModelRun]:
        return [run for run in self.runs.values() if run.is_active]

    @property
    def status(self) -> ThreadStatus:
        return "busy" if self.active else self.resting

    def next_due(self) -> ModelRun | None:
        """What a claim may take here: the oldest pending run, unless one is running."""
        if any(run.status == "running" for run in self.active):
            return None
        return next(iter(self.active), None)


class Model:
    """All threads and runs. Each method is a transition and says whether it happened."""

    def __init__(self) -> None:
        self.threads: dict[str, ModelThread] = {}

    @property
    def runs(self) -> list[ModelRun]:
        return [run for thread in self.threads.values() for run in thread.runs.values()]

    def run_of(self, thread_id: str, run_id: str) -> ModelRun | None:
        return self.threads[thread_id].runs.get(run_id)

    def create_thread(self, thread_id: str) -> None:
        self.threads[thread_id] = ModelThread(thread_id)

    def create(self, thread_id: str, run_id: str, *, claimed: bool) -> None:
        run = self.threads[thread_id].runs[run_id] = ModelRun(thread_id, run_id)
        if claimed:
            run.start()

    def claimable(self, *, last_chances: bool) -> list[ModelRun]:
        due = [run for thread in self.threads.values() if (run := thread.next_due())]
        return [run for run in due if run.is_last_chance == last_chances]

    def finish(
        self, run: ModelRun, attempt: int, *, status: FinalStatus, cancelled: bool, resting: RestingStatus
    ) -> bool:
        if run.status != "running" or run.attempt != attempt or (run.wish and not cancelled):
            return False
        run.status = status
        self.threads[run.thread_id].resting = resting
        return True

    def finish_rolled_back(self, run: ModelRun, attempt: int) -> bool:
        if run.status != "running" or run.attempt != attempt or run.wish != "rollback":
            return False
        del self.threads[run.thread_id].runs[run.run_id]
        return True

    def release(self, run: ModelRun, attempt: int) -> bool:
        if run.status != "running" or run.attempt != attempt:
            return False
        run.status, run.expired = "pending", False
        return True

    def cancel(self, thread_id: str, action: CancelAction) -> None:
        thread = self.threads[thread_id]
        for run in thread.active:
            if run.status == "running":
                run.wish = "rollback" if run.wish == "rollback" else action
            elif action == "rollback":
                del thread.runs[run.run_id]
            else:
                run.status = "interrupted"

    def lapsed(self, what: Literal["swept", "buried"]) -> list[ModelRun]:
        spent = what == "buried"
        expired = [run for run in self.runs if run.status == "running" and run.expired]
        return [run for run in expired if (run.crashes + 1 >= MAX_CRASHES) == spent]

    def sweep(self) -> None:
        for run in self.lapsed("swept"):
            run.status, run.crashes, run.expired = "pending", run.crashes + 1, False

    def bury(self) -> None:
        for run in self.lapsed("buried"):
            run.status = "interrupted" if run.wish else "error"
            run.crashes, run.expired = run.crashes + 1, False
            self.threads[run.thread_id].resting = "error"
