"""The options of ``docker run`` and ``podman run`` that are known here, by their long names."""

from __future__ import annotations

PROTECTED = (
    *("privileged", "security-opt", "network", "ipc", "pid", "userns", "uts", "cgroupns", "cgroup-parent"),
    *("volume", "mount", "volumes-from", "env-file", "device", "gpus", "cap-add", "group-add", "runtime", "sysctl"),
    *("publish", "publish-all"),
)
"""They open the machine to a container: its folders, devices, processes, networks, other users' memory."""

FLAGS = frozenset(
    {"privileged", "read-only", "publish-all", "no-healthcheck", "interactive", "tty", "init", "rm", "detach"}
)
"""These take no value."""

HARMLESS = frozenset(
    {
        *("env", "label", "hostname", "workdir", "user", "tmpfs", "read-only", "stop-signal", "no-healthcheck"),
        *("shm-size", "memory", "memory-reservation", "memory-swap", "memory-swappiness", "pids-limit", "ulimit"),
        *("cpus", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems", "platform"),
        *("add-host", "dns", "dns-option", "dns-search", "expose"),
    }
)
"""Any task may give them: they concern its own container."""

KNOWN = HARMLESS | frozenset(PROTECTED)
