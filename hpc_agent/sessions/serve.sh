#!/usr/bin/env bash
# Serves ssh, and JupyterLab where it was asked for, until the job ends. Made by hpc-agent session: only the key below
# is let in, and the server is the user's own, on a port of its own. Needs no root and no network but the cluster's.
set -euo pipefail
umask 077

folder=@folder@
key=@key@
sshd=@sshd@
jupyter=@jupyter@

fail() { echo "the session cannot be served on $(hostname): $*" >&2; exit 1; }

if [ -z "$sshd" ]; then
    sshd=$(PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin" command -v sshd) ||
        fail "it has no sshd; install OpenSSH's server there, or name one with --sshd"
fi
[ -x "$sshd" ] || fail "there is no program $sshd"
command -v ssh-keygen >/dev/null || fail "it has no ssh-keygen; install OpenSSH there"
[ -d "$folder" ] || fail "it does not see $folder; hpc.root must be on the shared file system"

scratch=$(mktemp -d)
children=()
finish() {
    [ ${#children[@]} -eq 0 ] || kill "${children[@]}" 2>/dev/null || true
    rm -rf "$scratch" "$folder/ready.json"
}
trap finish EXIT
trap 'exit 143' TERM INT

ssh-keygen -q -t ed25519 -N '' -C session -f "$scratch/host_key"
printf '%s\n' "$key" >"$scratch/authorized_keys"

# What the job has is what its shells see. One directive: of several the first counts.
variables=''
while IFS= read -r -d '' pair; do
    name=${pair%%=*} value=${pair#*=} # read itself would take a last "=" off the value
    case $name in # without what is the shell's own, or the task's: a script that runs there is not this task
        HOME | USER | LOGNAME | SHELL | MAIL | PWD | OLDPWD | SHLVL | TERM | _ | SSH_* | CLEARML_* | TRAINS_*) continue ;;
        *[!A-Za-z0-9_]* | '') continue ;;
    esac
    case $value in *[\"\\]* | *$'\n'*) continue ;; esac
    variables="$variables \"$name=$value\""
done < <(env -0)

cat >"$scratch/sshd_config" <<CONFIG
HostKey $scratch/host_key
AuthorizedKeysFile $scratch/authorized_keys
PidFile $scratch/sshd.pid
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
# The folder is this user's alone; those above it may be a /tmp.
StrictModes no
PermitRootLogin prohibit-password
AllowUsers $(id -un)
X11Forwarding no
ClientAliveInterval 30
Subsystem sftp internal-sftp
SetEnv$variables
CONFIG

random_port() { echo $((10000 + RANDOM % 22000)); } # below those that Linux gives to connections

last_words() { tail -n 3 "$scratch/sshd.log" | tr -d '\r' | tr '\n' ' '; } # a \r would take the line back

start_sshd() { # on a free port; sshd itself finds out whether it is
    for _ in {1..50}; do
        port=$(random_port)
        "$sshd" -D -e -f "$scratch/sshd_config" -p "$port" 2>"$scratch/sshd.log" &
        pid=$!
        until [ -e "$scratch/sshd.pid" ]; do # it has tried all addresses of the node; a full disk leaves the file empty
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        # Where a connection has the port on IPv4, sshd goes on with IPv6 alone.
        if ! grep -qi "address already in use" "$scratch/sshd.log"; then
            kill -0 "$pid" 2>/dev/null || break
            children+=("$pid")
            return
        fi
        kill "$pid" 2>/dev/null || true
        wait "$pid" || true
        rm -f "$scratch/sshd.pid"
    done
    fail "sshd: $(last_words)"
}
start_sshd

token='' jupyter_port=0
if [ -n "$jupyter" ]; then
    token=$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')
    for _ in {1..20}; do
        jupyter_port=$(random_port)
        # Only through ssh: it listens on the node's loopback address.
        (cd "${HOME:-/}" && JUPYTER_TOKEN=$token exec python -m jupyter lab --no-browser --allow-root --ip 127.0.0.1 \
            --port "$jupyter_port" --ServerApp.port_retries=0) &
        pid=$!
        until (: </dev/tcp/127.0.0.1/"$jupyter_port") 2>/dev/null; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.2
        done
        kill -0 "$pid" 2>/dev/null && break
        wait "$pid" || true
    done
    kill -0 "$pid" 2>/dev/null || fail "JupyterLab does not start; its words are above"
    children+=("$pid")
fi

printf '{"host": "%s", "port": %d, "user": "%s", "host_key": "%s", "fingerprint": "%s", "jupyter_port": %d, "token": "%s"}\n' \
    "$(hostname)" "$port" "$(id -un)" "$(cut -d' ' -f1,2 "$scratch/host_key.pub")" \
    "$(ssh-keygen -lf "$scratch/host_key.pub" | cut -d' ' -f2)" "$jupyter_port" "$token" >"$folder/.ready"
mv "$folder/.ready" "$folder/ready.json"
echo "the session is served on $(hostname), port $port"
# Not by "wait -n": it misses one that ended before.
all_run() { for pid in "${children[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done; }
while all_run; do
    sleep 2 &
    wait $! || true
done
fail "a server ended: $(last_words)"
