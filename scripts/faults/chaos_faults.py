"""The faults of a chaos run: which there are, in which order a seed makes them, and how each is made."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slurm_cluster.layout import NODES, UP_STATES
from slurm_cluster.lifecycle import wait_until

from faults.chaos_judge import Hit
from faults.chaos_site import SLURMD_TIMEOUT_S, Row, ServerProcess, Site
from faults.troubled import Trouble

UNKNOWN = "unknown"
"""The state of a node while slurmctld does not answer."""
_VICTIM_S = 40.0
"""How long a fault waits for a job that it can hit."""
_TROUBLES = (*Trouble, None, None, None, None)


@dataclass(frozen=True)
class Fault:
    kind: str
    pause: float
    """Seconds between the begin of the fault before and this one's."""
    seconds: float
    """How long it lasts, where that is ours to choose."""
    choice: float
    """0 to 1: which of those that it could hit."""


def plan(count: int, seed: int, of: Sequence[str]) -> list[Fault]:
    """Each of these kinds equally often, in an order, with pauses and lengths, that the seed decides."""
    dice = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += dice.sample(sorted(of), len(of))
    return [Fault(kind, dice.uniform(1, 5), dice.uniform(3, 15), dice.random()) for kind in kinds[:count]]


class Troublemaker:
    """``make`` carries a fault out, and returns when it is over. Several at once, but none of the same part."""

    def __init__(self, site: Site, server: ServerProcess) -> None:
        self._site = site
        self._server = server
        self._locks = {part: threading.Lock() for part in ("slurmctld", "slurmdbd", "node", "server", "daemon", "job")}
        self.hits: list[Hit] = []
        self.idle: list[Fault] = []
        """Faults that found nothing to hit."""
        self.errors: list[str] = []
        self.now: set[str] = set()
        """Kinds that are being made."""
        self._preemptors = 0
        self.over = 0
        """Faults that were made, or found nothing to hit."""
        self.stopping = False

    def make(self, fault: Fault) -> None:
        part, action = KINDS[fault.kind]
        with self._locks[part]:
            self.now.add(fault.kind)
            try:
                if not action(self, fault):
                    self.idle.append(fault)
            except Exception as error:  # noqa: BLE001 - of a thread; the run ends with it
                self.errors.append(f"{fault.kind}: {type(error).__name__}: {error}")
            finally:
                self.now.discard(fault.kind)
                self.over += 1

    def _hit(
        self, fault: Fault, since: float, tasks: Sequence[str], until: float | None = None, **more: str | bool
    ) -> bool:
        hit = Hit(fault.kind, since, until or time.time(), frozenset(tasks), **more)  # type: ignore[arg-type]
        self.hits.append(hit)
        return True

    def _in_flight(self) -> list[str]:
        return [row.task for row in self._site.rows()]

    # ---------------------------------------------------------------- parts that go away

    def slurmctld(self, fault: Fault) -> bool:
        tasks, since = self._in_flight(), time.time()
        self._site.stop_part("slurmctld")
        time.sleep(fault.seconds)
        self._site.start_part("slurmctld")
        return self._hit(fault, since, tasks, away="slurmctld")

    def slurmdbd(self, fault: Fault) -> bool:
        tasks, since = self._in_flight(), time.time()
        self._site.stop_part("slurmdbd")
        time.sleep(fault.seconds * 2)
        self._site.start_part("slurmdbd")
        return self._hit(fault, since, tasks)

    def server(self, fault: Fault) -> bool:
        with self._site.server_lock:
            tasks, since = self._in_flight(), time.time()
            self._server.kill()
            time.sleep(fault.seconds)
            self._server.start()
        return self._hit(fault, since, tasks)

    def answers(self, fault: Fault) -> bool:
        """Every second answer goes wrong in one of the ways in which answers do."""
        dice, proxy = random.Random(fault.choice), self._site.bench.proxy
        tasks, since = self._in_flight(), time.time()
        proxy.choose = lambda _endpoint: dice.choice(_TROUBLES)
        time.sleep(fault.seconds)
        proxy.choose = lambda _endpoint: None
        return self._hit(fault, since, tasks)

    def daemon(self, fault: Fault) -> bool:
        tasks, since = self._in_flight(), time.time()
        self._site.kill_daemon()
        time.sleep(fault.seconds / 2)
        self._site.start_daemon()
        return self._hit(fault, since, tasks)

    def two_daemons(self, fault: Fault) -> bool:
        """As if one had been started on the other login node; then the first one dies."""
        tasks, since = self._in_flight(), time.time()
        self._site.start_daemon()
        time.sleep(fault.seconds)
        self._site.kill_daemon()
        return self._hit(fault, since, tasks)

    # ---------------------------------------------------------------- nodes

    def slurmd(self, fault: Fault) -> bool:
        """Away for less than SlurmdTimeout: nothing may come of it."""
        node = self._node(fault)
        tasks, since = self._tasks_on(node), time.time()
        self._site.stop_part(node)
        time.sleep(min(fault.seconds, SLURMD_TIMEOUT_S / 2))
        self._site.start_part(node)
        return self._hit(fault, since, tasks, away=node)

    def dead_to_slurm(self, fault: Fault) -> bool:
        """slurmd is gone, the processes of its jobs go on: Slurm starts them elsewhere."""
        return self._lose(fault, processes=False)

    def dead(self, fault: Fault) -> bool:
        """All of a node is gone at once; it boots before, or after, Slurm takes it for dead."""
        return self._lose(fault, processes=True)

    def _lose(self, fault: Fault, *, processes: bool) -> bool:
        # Processes that were not killed shall still be there when Slurm gives them up.
        node = self._node(fault, 1.0 if processes else 1.5 * SLURMD_TIMEOUT_S)
        tasks, since = self._tasks_on(node), time.time()
        # Once a slurmd is back, Slurm (22.05, ReturnToService=2) notices that a job's script is gone from its node, but
        # not that a step is, of a job whose script is elsewhere.
        has_steps = any(node in row.nodes[1:] for row in self._site.rows())
        self._site.stop_part(node, kill=True)
        if processes:
            self._site.kill_jobs_on(node)
        until = time.time()
        given_up_after = since
        if not processes or has_steps or fault.choice > 0.5:
            given_up_after = self._until_down(node, since)
        time.sleep(min(fault.seconds, 8))
        self._site.start_part(node)
        wait_until(lambda: self._state(node) in UP_STATES, 90)
        back = time.time()
        self.hits.append(Hit("no slurmd", since, back, away=node))
        if processes:
            return self._hit(fault, since, tasks, until, node=node, kills_writers=True)
        # Those that live end when slurmd is back, at the latest.
        return self._hit(fault, given_up_after, tasks, back, node=node, ghosts=True)

    def _until_down(self, node: str, since: float) -> float:
        """Wait until Slurm takes a node for dead; returns when it was last known not to be: slurmctld may be away
        while it is asked."""
        up_at = since

        def is_down() -> bool:
            nonlocal up_at
            time.sleep(0.5)
            asked_at = time.time()
            state = self._state(node)
            if state.startswith("down"):
                return True
            if state != UNKNOWN:
                up_at = asked_at
            return self.stopping

        wait_until(is_down, 120)
        return up_at

    def _node(self, fault: Fault, ahead: float = 1.0) -> str:
        """One with a task that has so many seconds before it, if there is one."""
        victim = self._victim(fault, lambda row: self._runs(row, ahead))
        nodes = victim.nodes if victim else NODES
        return nodes[int(fault.choice * len(nodes))]

    def _state(self, node: str) -> str:
        return self._site.cluster.node_states().get(node, UNKNOWN)

    def _tasks_on(self, node: str) -> list[str]:
        return [row.task for row in self._site.rows() if node in row.nodes]

    def _runs(self, row: Row, ahead: float = 1.0) -> bool:
        return row.state == "RUNNING" and self._site.ahead_of(row.task) >= ahead

    # ---------------------------------------------------------------- single jobs

    def preempt(self, fault: Fault) -> bool:
        """An urgent job wants all GPUs of a node: its jobs of the lower partition must go."""
        victim = self._victim(fault, lambda row: row.partition == "scavenge" and self._runs(row))
        if victim is None:
            return False
        node, since = victim.nodes[0], time.time()
        tasks = [row.task for row in self._site.rows() if node in row.nodes and row.partition == "scavenge"]
        # By name: an sbatch that fails because slurmctld goes away may have queued it.
        self._preemptors += 1
        name = f"urgent-{self._preemptors}"
        urgent = ("-J", name, "-p", "urgent", "-w", node, "--gres=gpu:4", "-c", "1", "-t", "5", "-o", "/dev/null")
        queued = self._site.slurm("sbatch", *urgent, "--wrap", "sleep 2").returncode == 0
        if not wait_until(lambda: self._is_gone(name), 60):
            self._site.slurm("scancel", "--name", name)
            wait_until(lambda: self._is_gone(name), 60)
        if not queued:
            self.hits.append(Hit("perhaps preempted", since, time.time(), node=node, partition="scavenge"))
            return False
        return self._hit(fault, since, tasks, node=node, partition="scavenge")

    def _is_gone(self, name: str) -> bool:
        time.sleep(0.5)
        answer = self._site.slurm("squeue", "-h", "-o", "%j")
        return answer.returncode == 0 and name not in answer.stdout.split()

    def requeue(self, fault: Fault) -> bool:
        return self._to_job(fault, self._runs, "scontrol", "requeue")

    def cancel(self, fault: Fault) -> bool:
        fits = (lambda row: row.state == "PENDING") if fault.choice > 0.8 else self._runs
        return self._to_job(fault, fits, "scancel", cancels=True)

    def kill_rank(self, fault: Fault) -> bool:
        def rank(row: Row) -> int | None:
            return self._site.rank_of(row.task, fault.choice)

        victim = self._victim(fault, lambda row: len(row.nodes) > 1 and self._runs(row) and bool(rank(row)))
        pid = rank(victim) if victim else None
        if victim is None or pid is None:
            return False
        since = time.time()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return self._hit(fault, since, [victim.task], job=victim.job, kills_rank=True)

    def kill_pilot(self, fault: Fault) -> bool:
        """The pilot alone: its tasks end with it."""
        victim = self._victim(fault, lambda row: row.in_pilot and self._runs(row))
        pid = self._site.pilot_process(victim.job) if victim else None
        if victim is None or pid is None:
            return False
        since = time.time()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return self._to_pilot(fault, since, victim)

    def _to_pilot(self, fault: Fault, since: float, victim: Row) -> bool:
        """What ends a pilot ends none of its tasks for good."""
        tasks = {row.task for row in self._site.rows() if row.job == victim.job} | {victim.task}
        # They get SIGTERM and their grace.
        return self._hit(fault, since, sorted(tasks), time.time() + 10, job=victim.job)

    def _to_job(self, fault: Fault, fits: Callable[[Row], bool], *command: str, cancels: bool = False) -> bool:
        tried: set[str] = set()
        for _ in range(5):
            victim = self._victim(fault, lambda row: fits(row) and row.job not in tried)
            if victim is None:
                return False
            tried.add(victim.job)
            since = time.time()
            done = self._site.slurm(*command, victim.job).returncode == 0
            if victim.in_pilot and done:
                return self._to_pilot(fault, since, victim)
            # One that ended meanwhile, or may not be requeued, is refused. scancel exits 0 for one that has ended, and
            # may fail although slurmctld, on its way out, has done it: accounting tells in the end.
            if done or cancels:
                return self._hit(fault, since, [victim.task], job=victim.job, cancels=cancels)
        return False

    def _victim(self, fault: Fault, fits: Callable[[Row], bool]) -> Row | None:
        found: list[Row] = []

        def look() -> bool:
            found[:] = sorted((row for row in self._site.rows() if fits(row)), key=lambda row: int(row.job))
            if not found:
                time.sleep(0.5)  # squeue is a request to slurmctld, which others need too
            return bool(found) or self.stopping

        wait_until(look, _VICTIM_S)
        return found[int(fault.choice * len(found))] if found else None

    # ---------------------------------------------------------------- sbatch

    def accepted(self, fault: Fault) -> bool:
        return self._spoil(fault, "accepted")

    def refused(self, fault: Fault) -> bool:
        return self._spoil(fault, "refused")

    def _spoil(self, fault: Fault, how: str) -> bool:
        """The next sbatch of a task says "Socket timed out", and has queued the job or has not."""
        arm, log, since = self._site.spoilt / how, self._site.spoilt / "log", time.time()
        before = log.read_text().splitlines() if log.exists() else []
        arm.touch()
        if not wait_until(lambda: not arm.exists() or self.stopping, _VICTIM_S) or arm.exists():
            arm.unlink(missing_ok=True)
            return False
        done = wait_until(lambda: log.exists() and len(log.read_text().splitlines()) > len(before), 60)
        if not done:  # the real sbatch failed by itself
            return False
        task = re.search("[0-9a-f]{32}", log.read_text().splitlines()[len(before)])
        return self._hit(fault, since, [task[0]] if task else [])


Action = Callable[[Troublemaker, Fault], bool]
KINDS: dict[str, tuple[str, Action]] = {
    "slurmctld away": ("slurmctld", Troublemaker.slurmctld),
    "slurmdbd away": ("slurmdbd", Troublemaker.slurmdbd),
    "slurmd away for a moment": ("node", Troublemaker.slurmd),
    "node dead to Slurm, jobs live": ("node", Troublemaker.dead_to_slurm),
    "node dead": ("node", Troublemaker.dead),
    "server killed": ("server", Troublemaker.server),
    "answers lost, cut, refused": ("server", Troublemaker.answers),
    "daemon killed": ("daemon", Troublemaker.daemon),
    "two daemons, one dies": ("daemon", Troublemaker.two_daemons),
    "preempted": ("job", Troublemaker.preempt),
    "requeued": ("job", Troublemaker.requeue),
    "cancelled by hand": ("job", Troublemaker.cancel),
    "sbatch timed out, job queued": ("job", Troublemaker.accepted),
    "sbatch timed out, no job": ("job", Troublemaker.refused),
    "rank killed": ("job", Troublemaker.kill_rank),
    "pilot killed": ("job", Troublemaker.kill_pilot),
}
"""What may go wrong → the part that only one fault at a time may touch, and how it is made."""


def kinds(*, many_nodes: bool, pilots: bool = False) -> list[str]:
    """Those that a run's tasks can meet; ``many_nodes``: some of them run on several; ``pilots``: some in pilots."""
    left_out = {"rank killed": not many_nodes, "pilot killed": not pilots}
    return [kind for kind in KINDS if not left_out.get(kind, False)]
