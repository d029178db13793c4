"""The scripts that bundles hold, and those that make images. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

import msgspec

HOME = "/opt/hpc-agent"
"""Folder of our files in an image."""
CONTEXT = "/hpc-agent/context"
"""Folder of the build context in a container, during the build."""
CERTIFICATES = f"{CONTEXT}/certificates.pem"


class FolderRun(msgspec.Struct, frozen=True):
    """Command of a folder's script. Paths are relative to the folder; ``command`` begins with the program."""

    title: str
    cwd: str
    python_path: str
    command: Sequence[str]
    exports: Mapping[str, str] = msgspec.field(default_factory=dict)


_RUN = """\
#!/bin/sh
# {title}
# Runs it with the environment and the code next to this script; needs no network. Arguments go to the task's script.
# Its code may talk to a ClearML server; with CLEARML_OFFLINE_MODE=1 it keeps its results on this machine.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit
{exports}export VIRTUAL_ENV="$here/environment"
export PATH="$here/environment/bin:$PATH"
export PYTHONPATH="$here/"{python_path}"${{PYTHONPATH:+:$PYTHONPATH}}"
unset PYTHONHOME
cd "$here/"{cwd} || exit
exec {command} "$@"
"""


def run_script(run: FolderRun) -> str:
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in run.exports.items())
    return _RUN.format(
        title=_line(run.title),
        exports=exports,
        python_path=shlex.quote(run.python_path),
        cwd=shlex.quote(run.cwd),
        command=shlex.join(run.command),
    )


class ImageInstall(msgspec.Struct, frozen=True):
    """Steps inside an image during its build. ``base``: the folder of an interpreter of ours that it needs,
    ``base_python`` the interpreter in it, ``for_task``: also the task runs with it. ``agent_python``: runs the agent,
    if the image starts with one."""

    packages: bool
    base: str = ""
    base_python: str = ""
    for_task: bool = False
    agent_python: str = ""


def install_script(install: ImageInstall) -> str:
    """Ends with an error at the first step that fails."""
    lines = ["set -e", f"mkdir -p {HOME}", f"cp -R {CONTEXT}/source {HOME}/source"]
    if install.base:
        target, python = shlex.quote(install.base), shlex.quote(install.base_python)
        lines += [f"mkdir -p {target} /usr/local/bin", f"cp -R {CONTEXT}/python/. {target}/"]
        if install.for_task:
            lines += [f"ln -sf {python} /usr/local/bin/{name}" for name in ("python3", "python")]
    lines += [
        "export UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_INDEX_STRATEGY=unsafe-best-match UV_NO_CACHE=1",
        f"[ ! -s {CERTIFICATES} ] || export SSL_CERT_FILE={CERTIFICATES}",
    ]
    uv = f"{CONTEXT}/tools/uv"
    if install.packages:
        lines.append("task_python=$(command -v python3 || command -v python)")
        lines.append(
            f'{uv} pip install --quiet --no-deps --break-system-packages --python "$task_python" '
            f"--requirements {CONTEXT}/lock.txt"
        )
    if install.agent_python:
        lines += [
            f"{uv} venv --quiet --no-project --python {shlex.quote(install.agent_python)} {HOME}/agent",
            f"{uv} pip install --quiet --python {HOME}/agent/bin/python --requirements {CONTEXT}/agent.txt",
            f"cp -R {CONTEXT}/hpc_agent {HOME}/agent/lib/python3*/site-packages/",
            f"cp {CONTEXT}/entry {HOME}/entry",
            f"chmod 755 {HOME}/entry",
        ]
    return "\n".join([*lines, ""])


class ImageEntryPoint(msgspec.Struct, frozen=True):
    """Start of an image. ``clone``: each start runs a clone. ``code``: folder of the code in the image. ``servers``:
    addresses by name of their variables, for a start without configuration."""

    task: str
    image: str
    code: str
    clone: bool
    arguments: Sequence[str]
    servers: Mapping[str, str]


_ENTRY = """\
#!/bin/sh
# Runs {what} with what this image holds.
# It needs credentials: a clearml.conf at ~/clearml.conf or at CLEARML_CONFIG_FILE, or two variables, as in
#   docker run --rm -e CLEARML_API_ACCESS_KEY -e CLEARML_API_SECRET_KEY --network=host <this image>
if [ -z "${{CLEARML_CONFIG_FILE:-}}" ] && [ ! -s "$HOME/clearml.conf" ]; then
{servers}fi
export CLEARML_AGENT__HPC__CONTAINER__RUNTIME=none
export CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL=1
export CLEARML_AGENT_FORCE_CODE_DIR={code}
export CLEARML_DOCKER_IMAGE={image}
exec {home}/agent/bin/python -m hpc_agent execute --id {task} --standalone-mode{arguments} "$@"
"""


def entry_script(entry: ImageEntryPoint) -> str:
    servers = "".join(f'    export {name}="${{{name}:-{value}}}"\n' for name, value in entry.servers.items() if value)
    arguments = [*(["--clone"] if entry.clone else []), *entry.arguments]
    return _ENTRY.format(
        what=_line(f"{'a clone of ' if entry.clone else ''}ClearML task {entry.task}"),
        task=shlex.quote(entry.task),
        servers=servers or "    :\n",
        code=shlex.quote(entry.code),
        image=shlex.quote(entry.image),
        home=HOME,
        arguments="".join(f" {shlex.quote(word)}" for word in arguments),
    )


def definition(
    reference: str, archive: str, setup: Sequence[str], *, has_entry: bool, folders: Sequence[str] = ()
) -> str:
    """The definition file of an Apptainer image. ``archive``: the context as a tar file, for ``%files`` follows links,
    also those that lead nowhere. ``folders`` are mounted while it is made, which wants them to be there."""
    local = reference.startswith(("/", "./"))
    scheme, separator, rest = reference.partition("://")
    bootstrap, source = ("localimage", reference) if local else (scheme, rest) if separator else ("docker", reference)
    lines = [f"Bootstrap: {bootstrap}", f"From: {source}", ""]
    if folders:
        lines += ["%setup", *(f'    mkdir -p "$APPTAINER_ROOTFS"{shlex.quote(folder)}' for folder in folders), ""]
    lines += ["%files", f"    {archive} {CONTEXT}.tar", "", "%post"]
    unpack = [f"mkdir -p {CONTEXT}", f"tar -xf {CONTEXT}.tar -C {CONTEXT}"]
    install = [f"sh {CONTEXT}/install", f"rm -rf {CONTEXT} {CONTEXT}.tar"]
    lines += [f"    {line}" for line in [*unpack, *setup, *install]]
    if has_entry:
        lines += ["", "%runscript", f'    exec {HOME}/entry "$@"']
    return "\n".join([*lines, ""])


def _line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)
