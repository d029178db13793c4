"""A small library in the place of NVIDIA's, which nvidia-ml-py loads: GPU number i is at 10·i+5 % and 40+i °C, with
i+1 of its 16 GiB in use. ``FAKE_NVML_GPUS`` says how many there are; without it the library says there is no driver."""

from __future__ import annotations

import subprocess
from pathlib import Path

from capabilities import missing

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };
typedef struct { unsigned index; } device;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;

static device devices[64];

static unsigned count(void) {
    const char *text = getenv("FAKE_NVML_GPUS");
    return text ? (unsigned)atoi(text) : 0;
}
int nvmlInitWithFlags(unsigned flags) { return count() ? SUCCESS : DRIVER_NOT_LOADED; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return "as the stand-in says"; }
int nvmlDeviceGetCount_v2(unsigned *found) { *found = count(); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **found) {
    if (index >= count()) return INVALID_ARGUMENT;
    devices[index].index = index;
    *found = &devices[index];
    return SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, device **found) {
    for (unsigned index = 0; index < count(); index++) {
        char name[32];
        snprintf(name, sizeof name, "GPU-fake-%u", index);
        if (!strcmp(name, uuid)) return nvmlDeviceGetHandleByIndex_v2(index, found);
    }
    return NOT_FOUND;
}
int nvmlDeviceGetMemoryInfo(device *gpu, memory *found) {
    found->total = 16ull << 30;
    found->used = (gpu->index + 1ull) << 30;
    found->free = found->total - found->used;
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(device *gpu, utilization *found) {
    found->gpu = 10 * gpu->index + 5;
    found->memory = 0;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(device *gpu, unsigned sensor, unsigned *found) {
    *found = 40 + gpu->index;
    return SUCCESS;
}
"""


def build(folder: Path, gpus: int) -> dict[str, str]:
    """Variables for processes that shall see so many GPUs; tests are skipped where there is no C compiler."""
    source, library = folder / "nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(SOURCE)
    argv = ["gcc", "-shared", "-fPIC", "-o", str(library), str(source)]
    try:
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        missing("compiler", "no gcc for a stand-in of NVIDIA's library")
    return {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML_GPUS": str(gpus)}
