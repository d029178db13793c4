"""Evidence of a chaos run, kept so that its judge can be asked again: one JSON file next to ledgers and logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from faults.chaos_judge import Hit, Seen, Story
from faults.chaos_ledger import Job, read_ranks, starts_of_all
from faults.kept import EVIDENCE


@dataclass(frozen=True)
class TaskRecord:
    """One task: what it should do, where its ledger lies, and what the server showed of it at the end."""

    task: str
    ledger: str
    """Relative to the folder of the evidence."""
    job: Job
    seen: Seen


@dataclass(frozen=True)
class Evidence:
    """All that the judge is given, but for the ledgers, which the tasks have written."""

    policy: str
    seed: int
    tasks: Sequence[TaskRecord]
    hits: Sequence[Hit]
    idle: Sequence[str]
    """Kinds of faults that found nothing to hit."""
    jobs_left: Sequence[str]
    revived: int
    """Daemons that ended by themselves, and were started again."""
    seconds: float
    arrays: int = 0
    """Job arrays by which tasks went to Slurm."""

    def save(self, folder: Path) -> None:
        described = {**asdict(self), "hits": [{**vars(hit), "tasks": sorted(hit.tasks)} for hit in self.hits]}
        (folder / EVIDENCE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """
        Raises:
            OSError: the folder holds no evidence; the run that made it did not come to its end.
        """
        described = json.loads((folder / EVIDENCE).read_text(encoding="utf-8"))
        tasks = [
            TaskRecord(record["task"], record["ledger"], Job(**record["job"]), Seen(**record["seen"]))
            for record in described.pop("tasks")
        ]
        hits = [Hit(**{**hit, "tasks": frozenset(hit["tasks"])}) for hit in described.pop("hits")]
        return cls(tasks=tasks, hits=hits, **described)

    def stories(self, folder: Path) -> list[Story]:
        """The tasks with what they wrote down themselves."""
        return [self._story(record, folder) for record in self.tasks]

    def _story(self, record: TaskRecord, folder: Path) -> Story:
        ranks = read_ranks(folder / record.ledger, record.job.nodes)
        return Story(record.task, record.job, starts_of_all(ranks), record.seen, self.hits, ranks)
