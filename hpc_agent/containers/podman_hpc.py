"""podman-hpc, NERSC's podman whose images all nodes of a cluster see."""

from __future__ import annotations

from hpc_agent.containers.docker import Docker
from hpc_agent.containers.gpu_share import GpuMaker, GpuShare
from hpc_agent.containers.runtime_api import Argv


class PodmanHpc(Docker, frozen=True):
    """podman's command line. ``pull`` also converts the image (``migrate``) and puts it into the user's store on the
    shared file system, so that no file is made of it here."""

    name: str = "podman-hpc"
    program: str = "podman-hpc"
    is_shared = True

    def inspect(self, reference: str) -> Argv:
        # `image inspect` sees the node's own store alone.
        plain = reference.removeprefix("docker://")
        return [self.program, "images", "--quiet", "--no-trunc", f"--filter=reference={plain}"]

    def gpu_words(self, gpus: GpuShare) -> Argv:
        # Its site's module: libraries and devices of the node's driver. AMD's it does not know.
        return ["--gpu"] if gpus and gpus.maker is GpuMaker.NVIDIA else super().gpu_words(gpus)
