#!/usr/bin/env bash
# srun as a template's command finds it: one process on the agent's node, unless the template says otherwise.
# pyxis takes the last of several --container-mounts: they become one. The template's image holds, unless it is the
# task's (HPC_AGENT_LAUNCH_IMAGE), which the shared folder may have as a file.
words=(--nodes=1 --ntasks=1 --overlap ${SLURMD_NODENAME:+"--nodelist=$SLURMD_NODENAME"}) mounts= image=
while [ $# -gt 0 ]; do
    case $1 in
        --container-mounts | --container-image) set -- "$1=$2" "${@:3}"; continue ;;
        --container-mounts=*) mounts=${mounts:+$mounts,}${1#*=} ;;
        --container-image=*) [ -n "$image" ] && [ "$image" != "$HPC_AGENT_LAUNCH_IMAGE" ] || image=${1#*=} ;;
        *) words+=("$1") ;;
    esac
    shift
done
unset HPC_AGENT_LAUNCH_IMAGE
PATH=${PATH#*:}  # without the folder of this file
exec srun ${image:+"--container-image=$image"} ${mounts:+"--container-mounts=$mounts"} "${words[@]}"
