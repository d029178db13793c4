"""From a task's ``script.repository`` to what git is asked for.

See docs/internals/clearml-protocol.md#repository-addresses.
"""

from __future__ import annotations

import pytest

from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.errors import SourceError
from hpc_agent.redact import Secret
from hpc_agent.sources.remote import resolve, submodule_address

TOKEN = GitSettings(user="me", password=Secret("tok-en"), host="host")


@pytest.mark.parametrize(
    ("repository", "git", "url"),
    [
        ("https://host/lab/model.git", GitSettings(), "https://host/lab/model.git"),
        ("git@host:lab/model.git", GitSettings(), "git@host:lab/model.git"),
        ("ssh://git@host:2222/lab/model", GitSettings(), "ssh://git@host:2222/lab/model"),
        ("/srv/git/model.git", GitSettings(), "/srv/git/model.git"),
        ("file:///srv/git/model", GitSettings(), "file:///srv/git/model"),
        # https to ssh where the site says so; the https port means nothing to ssh
        ("https://host:8443/lab/m.git", GitSettings(force_ssh=True), "ssh://git@host/lab/m.git"),
        ("https://host/m", GitSettings(force_ssh=True, ssh_user="u", ssh_port=77), "ssh://u@host:77/m"),
        ("https://else/m", GitSettings(force_ssh=True, host="host"), "https://else/m"),
        ("ssh://git@host:22/m", GitSettings(force_ssh=True, ssh_port=77), "ssh://git@host:77/m"),
        ("git@host:lab/m", GitSettings(force_ssh=True, ssh_port=77), "ssh://git@host:77/lab/m"),
        ("git@host:lab/m", GitSettings(force_ssh=True), "git@host:lab/m"),
        # ssh to https where there is a token and no need for a key
        ("git@host:lab/m.git", TOKEN, "https://host/lab/m.git"),
        ("ssh://git@host:22/lab/m", TOKEN, "https://host/lab/m"),
        ("git@host:m", GitSettings(user="me", password=Secret("t"), translate_ssh=False), "git@host:m"),
        ("git@else:m", GitSettings(user="me", password=Secret("t"), host="host"), "git@else:m"),
    ],
)
def test_address_is_rewritten_as_configured(repository: str, git: GitSettings, url: str) -> None:
    assert resolve(repository, git).url == url


def test_credentials_leave_the_address() -> None:
    remote = resolve("https://me:s%40fe@host:8443/m.git", GitSettings())
    assert remote.url == "https://host:8443/m.git"
    assert (remote.user, remote.password.reveal()) == ("me", "s@fe")
    assert "s@fe" not in repr(remote)
    assert remote.origin == "https://host:8443"


def test_configured_credentials_go_to_their_host_only() -> None:
    git = GitSettings(user="me", password=Secret("t"), host="host")
    assert resolve("https://host/m", git).password.reveal() == "t"
    assert not resolve("https://else/m", git).password
    # A user name in the address is completed with the password that belongs to it.
    assert resolve("https://me@host/m", git).password.reveal() == "t"
    assert not resolve("https://you@host/m", git).password
    assert not resolve("https://me@else/m", git).password


def test_password_of_the_settings_goes_to_no_host_that_a_task_alone_names() -> None:
    git = GitSettings(user="me", password=Secret("t"))
    for repository in ("https://evil/m", "http://evil/m", "https://me@evil/m", "git@evil:m", "http://known/m"):
        remote = resolve(repository, git, known={"known"})
        assert not remote.password, repository
    assert resolve("https://known/m", git, known={"known"}).password.reveal() == "t"
    assert resolve("https://evil/m", git).withheld


def test_password_goes_unencrypted_only_to_the_host_that_is_named_for_it() -> None:
    git = GitSettings(user="me", password=Secret("t"), host="host")
    assert resolve("http://host/m", git).password.reveal() == "t"
    named = GitSettings(user="me", password=Secret("t"), host="host:8443")
    assert resolve("https://host:8443/m", named).password.reveal() == "t"
    assert not resolve("https://host:1/m", named).password


def test_ssh_address_with_a_colon_before_the_group_is_taken_as_it_is_meant() -> None:
    assert resolve("ssh://git@gitlab.com:group/repo.git", GitSettings()).url == "ssh://git@gitlab.com/group/repo.git"


@pytest.mark.parametrize(
    ("repository", "words"),
    [
        ("ssh://git@host:99999/x.git", "only a port is allowed"),
        ("ssh://127.0.0.1:-1/x", "only a port is allowed"),
        ("http://[::1/x.git", "not an address"),
        ("https://host:port/x.git", "only a port is allowed"),
        ("git://host/x.git", "set the task's repository to the https or ssh address"),
        ("https://host/" + "x" * 5000, "characters"),
    ],
)
def test_address_that_nothing_can_be_fetched_from_is_refused_in_a_sentence(repository: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        resolve(repository, GitSettings())


@pytest.mark.parametrize(
    "repository",
    ["--upload-pack=touch /tmp/x", "ext::sh -c touch", "EXT::x", "-oProxyCommand=x:y", "ssh://-oProxyCommand=x/y",
     "https://host/a b", "https://host/a\nb", "ftp://host/x", "transport::address", "relative/path", "../up", "host"],
)  # fmt: skip
def test_what_git_could_take_for_something_else_is_refused(repository: str) -> None:
    with pytest.raises(SourceError):
        resolve(repository, GitSettings())


def test_refusal_shows_no_password() -> None:
    with pytest.raises(SourceError) as error:
        resolve("ftp://me:secret@host/x", GitSettings())
    assert "secret" not in str(error.value)


def test_mirror_is_the_same_with_and_without_credentials() -> None:
    names = {resolve(r, GitSettings()).folder for r in ("https://host/m.git", "https://me:pass@host/m.git")}
    assert len(names) == 1
    assert names.pop().startswith("m.")
    assert resolve("https://host/m.git", GitSettings()).folder != resolve("https://host2/m.git", GitSettings()).folder


@pytest.mark.parametrize(
    ("parent", "address", "expected"),
    [
        ("https://host/lab/top.git", "../sub.git", "https://host/lab/sub.git"),
        ("git@host:lab/top.git", "../sub.git", "git@host:lab/sub.git"),
        ("/srv/git/top", "./sub", "/srv/git/top/sub"),
        ("https://host/lab/top.git", "https://other/sub", "https://other/sub"),
    ],
)
def test_submodule_address_is_relative_to_its_parent(parent: str, address: str, expected: str) -> None:
    assert submodule_address(parent, address) == expected
