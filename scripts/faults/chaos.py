"""One chaos run: tasks come, faults are made meanwhile, and when all is quiet the ledger is looked at."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slurm_cluster.layout import NODES, Cluster

from faults.chaos_evidence import Evidence, TaskRecord
from faults.chaos_faults import KINDS, Fault, Troublemaker, kinds, plan
from faults.chaos_judge import Seen, Story, Wrong, confirmed, ended_by_late_requests, ended_by_slurm
from faults.chaos_ledger import Job
from faults.chaos_site import OURS, PEERS, ServerProcess, Site, site
from faults.load import spinning
from hpc_agent.domain.ids import TaskId

_AHEAD = 6
"""Tasks that are enqueued before the first fault; the others come along with the faults."""
_OPEN = 3
"""So many are always under way, as long as there are more: a fault needs a task to hit."""
_ALIKE = 4
"""With job arrays: so many tasks in a row go to the same queue and partition, and this many times as many of them are
under way."""
_AT_ONCE = 12
"""Jobs; the three nodes have four processors each."""
_FAULTS_AT_ONCE = 3
_MORE_TIMES = 3
"""A kind of fault that found nothing to hit is tried again this often, with tasks that are made for it …"""
_LONG = 100
"""… and print so many lines."""
_HOLD_S = 30.0
"""How long a fault waits for the tasks to catch up."""
_FINALS = ("completed", "failed", "stopped")


@dataclass(frozen=True)
class Policy:
    """Who brings tasks from queues to jobs."""

    name: str
    argv: Sequence[str]
    settles: bool
    """It says of each attempt when nothing is left to do."""
    patience: float
    """Seconds without any change, and without a job, after which nothing more will happen."""


POLICIES = {policy.name: policy for policy in (Policy("hpc-agent", OURS, True, 240), Policy("peers", PEERS, False, 60))}


@dataclass(frozen=True)
class Progress:
    """For those who wait."""

    seconds: float
    enqueued: int
    tasks: int
    final: int
    jobs: int
    faults: int
    planned: int
    now: Sequence[str]


def jobs(count: int, seed: int, most_nodes: int, alike: int = 1) -> list[Job]:
    """``most_nodes``: of every second task, chosen by the seed. ``alike``: so many in a row ask for the same."""
    dice = random.Random(f"jobs {seed}")
    found = [
        Job(
            lines=120 if dice.random() < 0.15 else dice.randrange(10, 22),
            pause=0.3,
            code=3 if dice.random() < 0.15 else 0,
            queue=dice.choices(("again", "back", "once"), (5, 3, 2))[0],
            partition=dice.choice(("main", "scavenge")),
        )
        for _ in range(count)
    ]
    first = [found[number - number % alike] for number in range(count)]
    found = [replace(job, queue=of.queue, partition=of.partition) for job, of in zip(found, first, strict=True)]
    sizes = [*range(2, most_nodes + 1)]
    return [replace(job, nodes=dice.choice(sizes)) if sizes and dice.random() < 0.5 else job for job in found]


class Run:
    """``run_to_end`` once."""

    def __init__(
        self,
        built: Site,
        server: ServerProcess,
        policy: Policy,
        seed: int,
        wanted: Sequence[Job],
        show: Callable[[Progress], None],
        alike: int,
    ) -> None:
        """``wanted`` come for certain, and more like them as long as faults have no task to hit."""
        self._alike = alike
        self._site = built
        self._policy = policy
        self._seed = seed
        self._wanted = list(wanted)
        self._most_nodes = max(job.nodes for job in self._wanted)
        self._show = show
        self._trouble = Troublemaker(built, server)
        self._tasks: dict[TaskId, int] = {}
        self._status: dict[TaskId, str] = {}
        self._begun = time.monotonic()
        self._threads: list[threading.Thread] = []
        self._made = 0
        self._planned = 0

    def run_to_end(self, faults: Sequence[Fault]) -> Evidence:
        self._planned = len(faults)
        self._site.start_daemon()
        self._enqueue(_AHEAD * self._alike)
        begun = time.monotonic()
        while not self._site.rows() and time.monotonic() - begun < 60:
            self._wait(0.5)  # a fault that hits no task shows nothing
        for number, fault in enumerate(faults, 1):
            self._wait(fault.pause)
            held = time.monotonic()
            while self._is_behind(number / len(faults)) and time.monotonic() - held < _HOLD_S:
                self._wait(0.5)
            self._begin(fault)
        self._until_faults_are_over()
        self._make_missing(faults)
        self._enqueue(len(self._wanted))
        left = self._until_quiet()
        accounting, made = self._site.accounting(), self._trouble.hits
        return Evidence(
            policy=self._policy.name,
            seed=self._seed,
            tasks=self._records(),
            hits=[
                *confirmed(made, accounting),
                *ended_by_slurm(accounting),
                *(hit for node in NODES for hit in ended_by_late_requests(self._site.slurmd_log(node), made)),
            ],
            idle=[fault.kind for fault in self._trouble.idle],
            jobs_left=left,
            arrays=self._site.arrays,
            revived=self._site.ended_by_themselves,
            seconds=time.monotonic() - self._begun,
        )

    def _begin(self, fault: Fault) -> None:
        """In a thread, as soon as one of few is free."""
        while sum(thread.is_alive() for thread in self._threads) >= _FAULTS_AT_ONCE:
            self._wait(0.5)
        thread = threading.Thread(target=self._trouble.make, args=(fault,), name=fault.kind, daemon=True)
        thread.start()
        self._threads.append(thread)
        self._made += 1

    def _until_faults_are_over(self) -> None:
        while any(thread.is_alive() for thread in self._threads):
            self._trouble.stopping = self._all_final() and len(self._tasks) == len(self._wanted)
            self._wait(1)
        self._trouble.stopping = False

    def _make_missing(self, faults: Sequence[Fault]) -> None:
        """Each kind is made once at least: those that found nothing to hit get tasks of their own."""
        for _ in range(_MORE_TIMES):
            made = {hit.kind for hit in self._trouble.hits}
            missing = list({fault.kind: fault for fault in faults if fault.kind not in made}.values())
            if not missing:
                return
            self._planned += len(missing)
            for fault in missing:
                self._wanted += [
                    Job(lines=_LONG, pause=0.3, code=0, queue="again", partition=partition, nodes=self._most_nodes)
                    for partition in ("main", "scavenge")
                    for _ in range(min(self._alike, 2))
                ]
                self._enqueue(len(self._wanted))
                self._begin(fault)
            self._until_faults_are_over()

    def _is_behind(self, share: float) -> bool:
        """Whether the tasks are: faults that come when few are left show little."""
        return self._final() + 2 * _AT_ONCE < share * len(self._wanted)

    def _enqueue(self, up_to: int) -> None:
        for number in range(len(self._tasks), min(up_to, len(self._wanted))):
            self._tasks[self._site.enqueue(f"task-{number:03}", self._wanted[number])] = number

    def _in_groups(self, number: int) -> int:
        """Those that ask for the same come together."""
        return number - number % self._alike

    def _wait(self, seconds: float) -> None:
        """And keep an eye on everything meanwhile."""
        until = time.monotonic() + seconds
        while True:
            self._look()
            if self._trouble.errors:
                raise RuntimeError("; ".join(self._trouble.errors))
            if time.monotonic() >= until:
                return
            time.sleep(min(1.0, max(until - time.monotonic(), 0)))

    def _look(self) -> None:
        open_ones = [task for task in self._tasks if self._status.get(task) not in _FINALS]
        if self._site.server_lock.acquire(timeout=0.1):
            try:
                seen = self._site.bench.direct.tasks.get_states(open_ones)
            finally:
                self._site.server_lock.release()
            self._status.update({task: get_states.status.value for task, get_states in seen.items()})
        if not self._trouble.now & {"daemon killed", "two daemons, one dies"}:
            self._site.revive_daemon()
        share = (len(self._wanted) - _AHEAD) * self._trouble.over // max(self._planned, 1)
        self._enqueue(max(_AHEAD + share, self._in_groups(self._final() + _OPEN * self._alike)))
        self._show(self._progress())

    def _final(self) -> int:
        return sum(status in _FINALS for status in self._status.values())

    def _progress(self) -> Progress:
        return Progress(
            seconds=time.monotonic() - self._begun,
            enqueued=len(self._tasks),
            tasks=len(self._wanted),
            final=self._final(),
            jobs=len(self._site.rows()),
            faults=self._made,
            planned=self._planned,
            now=sorted(self._trouble.now),
        )

    def _all_final(self) -> bool:
        return all(self._status.get(task) in _FINALS for task in self._tasks)

    def _until_quiet(self) -> list[str]:
        """Wait for the end of all; returns the tasks whose jobs are left."""
        last, since = self._picture(), time.monotonic()
        while not (self._all_final() and self._settled() and not self._site.rows()):
            self._wait(1)
            now = self._picture()
            if now != last:
                last, since = now, time.monotonic()
            if time.monotonic() - since > self._policy.patience:
                break
        return [row.task for row in self._site.rows()]

    def _picture(self) -> object:
        rows = tuple((row.job, row.state) for row in self._site.rows())
        return rows, tuple(sorted(self._status.items())), self._settled()

    def _settled(self) -> bool:
        if not self._policy.settles:
            return True
        attempts = (self._site.folder / "hpc" / "runs").glob("*/*/submit.json")
        return all((path.parent / "settled.json").exists() for path in attempts)

    def _records(self) -> list[TaskRecord]:
        direct = self._site.bench.direct
        glimpses = direct.tasks.get_states(list(self._tasks))
        queued = {
            entry.task for queue in direct.queues.get_many(list(self._site.queues.values())) for entry in queue.entries
        }
        records = []
        for task, number in self._tasks.items():
            lines, *others = (self._lines(task, rank) for rank in range(self._wanted[number].nodes))
            seen = Seen(glimpses[task].status.value, glimpses[task].reason, lines, task in queued, others)
            ledger = self._site.ledger(f"task-{number:03}").relative_to(self._site.folder)
            records.append(TaskRecord(task, str(ledger), self._wanted[number], seen))
        return records

    def _lines(self, task: TaskId, rank: int) -> list[int]:
        return [int(line.split()[1]) for line in self._site.bench.lines(task, rank)]


class Result:
    """The judge's findings on the evidence that lies in a folder."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            OSError: there is no evidence.
        """
        self.evidence = Evidence.load(folder)
        self.stories: Sequence[Story] = self.evidence.stories(folder)

    def wrong(self) -> list[tuple[Story, Wrong, str]]:
        return [(story, kind, text) for story in self.stories for kind, text in story.wrong()]

    def count(self, kind: Wrong) -> int:
        """Tasks, not symptoms."""
        return len({story.task for story, found, _ in self.wrong() if found is kind})

    @property
    def _has_pilots(self) -> bool:
        """Whether the run had any: their tasks' jobs are counted in place of restarts."""
        return any(start.restart.startswith("p") for story in self.stories for start in story.starts)

    @property
    def is_right(self) -> bool:
        return not self.wrong() and not self.evidence.jobs_left

    def table(self) -> list[dict[str, object]]:
        """By kind of fault: how often, the tasks that it met, how they ended."""
        rows: list[dict[str, object]] = []
        many_nodes = any(story.job.nodes > 1 for story in self.stories)
        for kind in kinds(many_nodes=many_nodes, arrays=bool(self.evidence.arrays), pilots=self._has_pilots):
            hits = [hit for hit in self.evidence.hits if hit.kind == kind]
            met = [story for story in self.stories if any(story.touched_by(hit) for hit in hits)]
            ends = Counter(story.seen.status for story in met)
            rows.append(
                {
                    "fault": kind,
                    "made": len(hits),
                    "tasks": len(met),
                    **{status: ends[status] for status in _FINALS},
                    "open": sum(count for status, count in ends.items() if status not in _FINALS),
                    "started again": sum(len(story.starts) > 1 for story in met),
                    "wrong": sum(bool(story.wrong()) for story in met),
                }
            )
        return rows

    def figures(self) -> dict[str, object]:
        statuses = Counter(story.seen.status for story in self.stories)
        made = sum(hit.kind in KINDS for hit in self.evidence.hits)
        return {
            "policy": self.evidence.policy,
            "seed": self.evidence.seed,
            "goals": [
                {"name": kind.value, "value": self.count(kind), "bound": 0, "met": self.count(kind) == 0}
                for kind in Wrong
            ],
            "tasks": len(self.stories),
            "tasks on many nodes": sum(story.job.nodes > 1 for story in self.stories),
            "job arrays": self.evidence.arrays,
            "statuses": dict(statuses),
            "without an end": sum(count for status, count in statuses.items() if status not in _FINALS),
            "starts": sum(len(story.starts) for story in self.stories),
            "cut at their end": sum(story.cut_at_its_end for story in self.stories),
            "faults made": made,
            "faults that found nothing to hit": len(self.evidence.idle),
            "jobs left": len(self.evidence.jobs_left),
            "daemons that ended by themselves": self.evidence.revived,
            "seconds": round(self.evidence.seconds),
            "by fault": self.table(),
            "faults": [{**vars(hit), "tasks": sorted(hit.tasks)} for hit in self.evidence.hits],
            "wrong": [{"task": story.task, "what": kind.value, "how": text} for story, kind, text in self.wrong()],
        }


def chaos(
    folder: Path,
    cluster: Cluster,
    *,
    tasks: int,
    seed: int,
    policy: str,
    show: Callable[[Progress], None],
    load: bool = False,
    most_nodes: int = 1,
    arrays: bool = False,
    pilots: bool = False,
) -> Result:
    """A run with ``tasks`` tasks or more on a cluster that is up. ``load``: together with processes that keep all
    processors busy, and with calls of server and Slurm that take their time. ``most_nodes``: of a task.
    ``arrays``: tasks come in groups, which travel as job arrays. ``pilots``: some tasks run in pilots."""
    alike = _ALIKE if arrays else 1
    possible = kinds(many_nodes=most_nodes > 1, arrays=arrays, pilots=pilots)
    faults = plan(max(len(possible), tasks // 4), seed, possible)
    folder.mkdir(parents=True, exist_ok=True)
    who = POLICIES[policy]
    with (
        spinning((os.cpu_count() or 1) if load else 0),
        site(folder, cluster, who.argv, _AT_ONCE, slow=load, arrays=arrays, pilots=pilots) as (built, server),
    ):
        evidence = Run(built, server, who, seed, jobs(tasks, seed, most_nodes, alike), show, alike).run_to_end(faults)
    evidence.save(folder)
    return Result(folder)
