"""What ``hpc-agent init`` has to know from a person: asked, checked, or remembered from the last time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from hpc_agent.errors import HpcAgentError, InputError
from hpc_agent.setup.section import Choices, suggested_partition
from hpc_agent.setup.survey import SiteFacts

if TYPE_CHECKING:
    from hpc_agent.config.clearml_settings import ApiSettings


def suggested(facts: SiteFacts) -> Choices:
    """What suits the site, for a first run."""
    partition = suggested_partition(facts.cluster) if facts.cluster else None
    home, others = facts.folders[:1], facts.folders[1:]
    shared = [folder for folder in others if folder.shared]
    # A home folder often has a small quota, so the large part goes elsewhere; where old files are deleted it is built
    # again. Records of runs stay at home, unless home is this machine's alone.
    cache = next(iter(sorted(shared, key=lambda folder: not folder.short_lived)), None)
    lasting = next((folder for folder in shared if not folder.short_lived), None)
    own_home = bool(home) and not home[0].shared and lasting is not None
    return Choices(
        partition=partition.name if partition else "",
        root=str(lasting.path / "hpc-agent") if own_home and lasting else "",
        cache_dir=str(cache.path / "hpc-agent-cache") if cache and not own_home else "",
    )


def earlier(path: Path) -> Choices | None:
    """What was chosen when the section was written the last time."""
    from hpc_agent.config.hocon import parse
    from hpc_agent.config.tree import get
    from hpc_agent.errors import ConfigError
    from hpc_agent.setup.managed_text import last_written

    try:
        tree = parse(last_written(path), str(path))
    except ConfigError:
        return None
    queues = get(tree, "hpc.queues")
    if not isinstance(queues, dict) or not queues:
        return None
    first = next(iter(queues.values()))
    partition = first.get("resources", {}).get("partition") if isinstance(first, dict) else ""
    return Choices(
        tuple(queues),
        str(partition or ""),
        *(str(get(tree, f"hpc.{key}") or "") for key in ("resources.account", "resources.qos", "root", "cache_dir")),
    )


def check(choices: Choices, facts: SiteFacts) -> None:
    """
    Raises:
        InputError: a value that is not known here.
    """
    _check_queues(choices.queues)
    cluster = facts.cluster
    if cluster is not None:
        for name in filter(None, choices.partition.split(",")):
            _check_one_of("partition", name, [partition.name for partition in cluster.partitions])
        if cluster.accounts:
            _check_one_of("account", choices.account, [account.name for account in cluster.accounts])
        if cluster.qos:
            _check_one_of("QOS", choices.qos, list(cluster.qos))
    for name, folder in (("--root", choices.root), ("--cache-dir", choices.cache_dir)):
        if folder:
            _check_folder(name, folder)


def _check_queues(queues: Sequence[str]) -> None:
    for queue in queues:
        if not queue.strip() or not queue.isprintable() or set(queue) & set('"\\'):
            raise InputError(
                f"{queue!r} cannot be the name of a queue here: no quotes, backslashes or control characters"
            )


def _check_one_of(what: str, name: str, known: Sequence[str]) -> None:
    if name and name not in known:
        raise InputError(f'no {what} that you may use is named "{name}"; there are: {", ".join(dict.fromkeys(known))}')


def _check_folder(name: str, folder: str) -> None:
    import os

    from hpc_agent.access import weakness_of

    path = Path(folder).expanduser()
    if not path.is_absolute():
        raise InputError(f"{name} is {folder}, expected an absolute path: jobs start in other folders")
    above = next(parent for parent in (path, *path.parents) if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{name} is {folder}, but {above} is not a folder that you may write to")
    if name == "--root" and (weakness := weakness_of(path)):
        raise InputError(f"{name} is {folder}, and {weakness.what}; {weakness.remedy}")


# ---------------------------------------------------------------- questions


def ask(choices: Choices, facts: SiteFacts, given: set[str]) -> Choices:
    """Each question with what would be taken as its default; ``given``: what flags have answered."""
    cluster = facts.cluster
    click.echo("\nEnter takes the value in brackets.")
    if "queues" not in given:
        answer = _prompt("ClearML queues to serve, with spaces between", shlex.join(choices.queues), _queues)
        choices = replace(choices, queues=tuple(shlex.split(answer)))
    if cluster is not None and cluster.partitions and "partition" not in given:
        names = [p.name for p in cluster.partitions if p.allowed]
        question = f"Partition of their jobs: {', '.join(names)}"
        answer = _prompt(question, choices.partition or names[0], lambda text: _one_of("partition", text, names))
        choices = replace(choices, partition=answer)
    accounts = list(dict.fromkeys(account.name for account in cluster.accounts)) if cluster else []
    if len(accounts) > 1 and "account" not in given:
        default = next((account.name for account in cluster.accounts if account.default), "") if cluster else ""
        question = f"Account to charge: {', '.join(accounts)}"
        answer = _prompt(question, choices.account or default, lambda text: _one_of("account", text, accounts))
        choices = replace(choices, account="" if answer == default and not choices.account else answer)
    if "root" not in given:
        question = "Folder for our files, which all nodes see"
        answer = _prompt(question, choices.root or "~/.clearml/hpc", lambda text: _folder("--root", text))
        choices = replace(choices, root="" if answer == "~/.clearml/hpc" else answer)
    return choices


def ask_for_service(kinds: Sequence[str], facts: SiteFacts) -> str:
    """One of ``kinds`` that this site has."""
    periodic = facts.cluster is not None and facts.cluster.periodic_jobs
    offered = [kind for kind in kinds if periodic or kind != "scrontab"]
    answer: str = click.prompt("Keep the daemon running by", default="none", type=click.Choice(offered))
    return answer


def ask_for_server(api: ApiSettings) -> str:
    """The text of a section ``api``."""
    import msgspec

    from hpc_agent.config.client_conf import client_conf
    from hpc_agent.config.servers import completed
    from hpc_agent.redact import Secret

    click.echo("\nThere is no ClearML server in your configuration.")
    click.echo("Create credentials on the server's page (Settings, Workspace) and give them here.")
    url = _prompt("Address of the API server", api.api_server or "https://api.clear.ml", _address)
    access = click.prompt("Access key")
    secret = click.prompt("Secret key", hide_input=True)
    return client_conf(completed(msgspec.structs.replace(api, api_server=url), {}), access, Secret(secret))


def _prompt(question: str, default: str, check_answer: object) -> str:
    def converted(text: str) -> str:
        try:
            check_answer(text)  # type: ignore[operator]
        except HpcAgentError as error:
            raise click.UsageError(str(error)) from error
        return text

    answer: str = click.prompt(question, default=default, value_proc=converted)
    return answer


def _queues(text: str) -> None:
    try:
        names = shlex.split(text)
    except ValueError as error:
        raise InputError(f"a quote is not closed in: {text}") from error
    if not names:
        raise InputError("name a queue at least")
    _check_queues(names)


def _one_of(what: str, text: str, known: Sequence[str]) -> None:
    for name in text.split(","):
        _check_one_of(what, name, known)


def _folder(name: str, text: str) -> None:
    if text != "~/.clearml/hpc":
        _check_folder(name, text)


def _address(text: str) -> None:
    from hpc_agent.config.clearml_settings import ApiSettings
    from hpc_agent.config.servers import completed

    completed(ApiSettings(api_server=text), {})
