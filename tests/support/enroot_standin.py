"""Stand-in for enroot, and for srun with the plugin pyxis: their words are checked, and the command truly runs.

enroot_standin.py FOLDER APPTAINER enroot start|import …
enroot_standin.py FOLDER APPTAINER srun …

Apptainer runs the SquashFS file, in a step of the real srun where it is pyxis. ``FOLDER/calls`` has the words, one call
a line, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = ("exec", "--no-privs", "--contain", "--cleanenv")


def main() -> None:
    folder, apptainer, name, *words = sys.argv[1:]
    with Path(folder, "calls").open("a", encoding="utf-8") as calls:
        calls.write(f"{json.dumps([name, *words])}\n")
    if name == "srun":
        srun(apptainer, words)
    elif words[0] == "import":
        import_image(apptainer, words[1:])
    elif words[0] == "start":
        start(apptainer, words[1:])
    sys.exit(f"enroot: no command {words[0]}")


def start(apptainer: str, words: list[str]) -> None:
    argv = [apptainer, *RUN]
    entry: list[str] = []
    while words[0].startswith("-"):
        flag, value = words.pop(0), words.pop(0)
        if flag == "--mount":
            source, target, kind, options = value.split(":")
            assert kind == "none" and "bind" in options.split(",") and "x-create=auto" in options.split(","), value
            argv += ["--bind", f"{source}:{target}:{'ro' if 'ro' in options.split(',') else 'rw'}"]
        elif flag == "--env":
            argv += ["--env", value]
        elif flag == "--rc":
            argv += ["--bind", f"{value}:/.rc:ro"]
            entry = ["/bin/sh", "/.rc"]
        else:
            sys.exit(f"enroot: unknown option {flag}")
    image, *command = words
    os.execv(apptainer, [*argv, checked(image), *entry, *command])


def import_image(apptainer: str, words: list[str]) -> None:
    output, address = words
    address = address.removeprefix("docker://").replace("#", "/", 1)
    print(f"[INFO] Querying registry for {address}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as work:
        argv = [apptainer, "build", "--no-https", "--sandbox", f"{work}/root", f"docker://{address}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"[ERROR] Could not process JSON input: {done.stderr.splitlines()[-1]}")
        squash = ["mksquashfs", f"{work}/root", output.removeprefix("--output="), "-noD", "-noF", "-quiet"]
        subprocess.run(squash, stdout=subprocess.DEVNULL, check=True)
    sys.exit(0)


def srun(apptainer: str, words: list[str]) -> None:
    """Options of pyxis are the container's, the others srun's own."""
    argv = [apptainer, *RUN[:-1]]  # srun's environment goes along
    step: list[str] = []
    image = ""
    while words[0].startswith("-"):
        word = words.pop(0)
        name, _, value = word.partition("=")
        if name == "--container-image":
            image = value
        elif name == "--container-mounts":
            argv += [item for mount in value.split(",") for item in ("--bind", mount)]
        elif name not in ("--no-container-mount-home", "--no-container-entrypoint"):
            step.append(word)
    real = shutil.which("srun")
    assert real is not None
    os.execv(real, [real, *step, *argv, checked(image), *words])


def checked(image: str) -> str:
    if not Path(image).is_file():
        sys.exit(f"[ERROR] No such file or directory: {image}")
    return image


if __name__ == "__main__":
    main()
