# Sourced by the other scripts: finds a Python, makes the virtual environments, says what takes its time.

# Tests start thousands of programs: each would compile what it imports, for up to a second of processor time.
unset PYTHONDONTWRITEBYTECODE

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi

say() { printf '%s%s%s\n' "$bold" "$*" "$plain" >&2; }

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step "what is done" command …   shows that it works, and its output only if it fails
step() {
    local what=$1 log begun=$SECONDS child
    shift
    log=$(mktemp)
    "$@" >"$log" 2>&1 &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        [ -t 2 ] && printf '\r\e[K%s … %d s' "$what" $((SECONDS - begun)) >&2
        sleep 0.2
    done
    if wait "$child"; then
        [ -t 2 ] && printf '\r\e[K' >&2
        printf '%s … %d s\n' "$what" $((SECONDS - begun)) >&2
        rm -f "$log"
    else
        printf '\n' >&2
        tail -n 40 "$log" >&2
        die "$what failed; the whole log is $log"
    fi
}

can_make_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# The first Python ≥ 3.10 on PATH that can make virtual environments. On Debian that is a package of its own, installed
# here where it can be.
find_python() {
    local candidate found=''
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || continue
        can_make_environments "$candidate" && { echo "$candidate"; return; }
        [ -n "$found" ] || found=$candidate
    done
    [ -n "$found" ] || die "Python 3.10 or newer is needed, and $(python3 --version 2>/dev/null || echo none) is here;" \
        "install a newer one and name it: PYTHON=/path/to/python3.12 $0"
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        step "Asking for Debian's list of packages" apt-get update -qq
        step "Installing python3-venv" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends python3-venv
        can_make_environments "$found" && { echo "$found"; return; }
    fi
    die "$found cannot make virtual environments; install them: apt-get install python3-venv"
}

# make_venv FOLDER STAMP pip-arguments …   creates or refreshes an environment when STAMP changed
make_venv() {
    local folder=$1 stamp=$2 python
    shift 2
    [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && return
    python=$(find_python) || exit 1
    [ -x "$folder/bin/python" ] || step "Making the virtual environment ${folder#"$root"/}" "$python" -m venv "$folder"
    step "Installing into ${folder#"$root"/}" "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    echo "$stamp" >"$folder/.stamp"
}

# own_venv EXTRA   this checkout with an extra, pinned by the lock file
own_venv() {
    local stamp
    stamp="$1 $(cat "$root/pyproject.toml" "$root/requirements.lock" | cksum)"
    # The environment of the tests serves the demo as well.
    case "$(cat "$venv/.stamp" 2>/dev/null)" in
        "dev ${stamp#* }") ;;
        *) make_venv "$venv" "$stamp" --constraint "$root/requirements.lock" --editable "$root[$1]" ;;
    esac
}

test_packages=(git slurm-wlm slurmctld slurmd munge slurmdbd mariadb-server podman runc charliecloud-runtime debootstrap
    zstd git-lfs squashfs-tools squashfuse iproute2 fuse3 locales gcc libc6-dev perl zsh fish
    chromium)

missing_packages() {
    local package
    for package in "${test_packages[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "Left out, for want of root or apt-get: the tests that need ${missing[*]}"
        return
    fi
    step "Asking for Debian's list of packages" apt-get update -qq
    step "Installing ${missing[*]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}"
}

# What the tests need, on this machine.
test_environment() {
    local peers
    # Here, since it may install one, which two at a time cannot.
    PYTHON=$(find_python) || exit 1
    export PYTHON
    # ClearML's own programs, newest, in an environment of their own: their pins are not ours. A new week, a new look
    # for newer ones. At the same time: pip uses one processor.
    make_venv "$root/.venv-peers" "peers with sessions $(date +%G-%V)" --upgrade clearml clearml-agent clearml-session &
    peers=$!
    own_venv dev
    wait "$peers"
    install_packages
}
