#!/usr/bin/env bash
# Takes the place of the ssh server that a task of clearml-session downloads on its node (docs/sessions.md): OpenSSH's,
# with a host key of its own, for the keys in your ~/.ssh/authorized_keys.
set -euo pipefail
umask 077

[ "${1:-}" = dropbear ] || exit 0 # it is asked to convert the host keys of the package too, which all users have
while [ $# -gt 1 ] && [ "$1" != -p ]; do shift; done
port=${2:?"expected -p PORT"}

sshd=$(PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin" command -v sshd) || {
    echo "$(hostname) has no sshd: install OpenSSH's server there" >&2
    exit 1
}
scratch=$(mktemp -d)
ssh-keygen -q -t ed25519 -N '' -C session -f "$scratch/host_key"
# Shells get what the job has of the node; sshd starts them with an empty environment.
variables=$(env | grep -E '^(SLURM_[A-Z_]+|(CUDA|ROCR|HIP)_VISIBLE_DEVICES)=[^"\\ ]+$' | tr '\n' ' ' || true)
exec "$sshd" -D -e -f /dev/null -p "$port" -o HostKey="$scratch/host_key" -o PidFile=none -o UsePAM=no \
    -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o PermitRootLogin=prohibit-password \
    ${variables:+-o "SetEnv=$variables"}
