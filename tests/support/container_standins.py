"""Stand-ins for singularity and for srun with pyxis, which this machine cannot have: they run the command in a folder
that holds an image, with the mounts that they are given, and note their arguments.

They want root: mounts are made in a mount namespace of the command's own.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

_IN_IMAGE = """\
#!/bin/bash
# in-image IMAGE SOURCE:TARGET[:ro|rw] … -- COMMAND: runs COMMAND with the folder IMAGE as its root.
set -eu
image=$1 binds=()
shift
while [ "$1" != -- ]; do binds+=("$1"); shift; done
shift
root=$(mktemp -d)
trap 'rmdir "$root"' EXIT
export root image
exec unshare --mount --propagation private bash -euc '
mount -t tmpfs tmpfs "$root"
for entry in "$image"/*; do
    name=${entry##*/}
    if [ -L "$entry" ]; then cp -P "$entry" "$root/"
    elif [ "$name" = usr ]; then mkdir "$root/usr"; mount --bind "$entry" "$root/usr"
    else cp -a "$entry" "$root/"; fi
done
for folder in proc dev sys; do mkdir -p "$root/$folder"; mount --rbind "/$folder" "$root/$folder"; done
while [ "$1" != -- ]; do
    IFS=: read -r source target mode <<<"$1"
    target=$root${target:-$source}
    if [ -d "$source" ]; then mkdir -p "$target"; else mkdir -p "${target%/*}"; touch "$target"; fi
    mount --bind "$source" "$target"
    shift
done
shift
exec chroot "$root" "$@"
' in-image "${binds[@]}" -- "$@"
"""
_SINGULARITY = """\
#!/bin/bash
echo "singularity $*" >> "@log@"
[ "$1" = exec ] || exit 0
shift
binds=()
while [ "${1#-}" != "$1" ]; do
    case $1 in
        --bind) binds+=("$2"); shift ;;
        --bind=*) binds+=("${1#*=}") ;;
    esac
    shift
done
image=$1
shift
exec "@folder@/in-image" "$image" "${binds[@]}" -- "$@"
"""
_SRUN = """\
#!/bin/bash
echo "srun $*" >> "@log@"
options=() binds=() image=
while [ "${1#-}" != "$1" ]; do
    case $1 in
        --container-image=*) image=${1#*=} ;;
        --container-mounts=*) IFS=, read -ra binds <<<"${1#*=}" ;;
        --container-*|--no-container-*) ;;
        *) options+=("$1") ;;
    esac
    shift
done
[ -n "$image" ] || exec "@srun@" "${options[@]}" "$@"
exec "@srun@" "${options[@]}" "@folder@/in-image" "$image" "${binds[@]}" -- "$@"
"""


class StandIns:
    """``folder`` is to be first on PATH."""

    def __init__(self, folder: Path) -> None:
        srun = shutil.which("srun")
        assert srun is not None
        self.folder = folder
        self._log = folder / "arguments"
        for name, text in (("in-image", _IN_IMAGE), ("singularity", _SINGULARITY), ("srun", _SRUN)):
            for word, value in (("log", self._log), ("folder", folder), ("srun", srun)):
                text = text.replace(f"@{word}@", str(value))
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def calls(self, program: str, *words: str) -> Sequence[str]:
        """The command lines of a program that have all these words, without its name."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        found = [line.partition(" ")[2] for line in lines if line.startswith(f"{program} ")]
        return [line for line in found if all(word in line for word in words)]
