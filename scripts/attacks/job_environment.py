"""Secrets of the daemon's environment, on their way into jobs, where others may read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attacks.case import Case
from hpc_agent.config.job_config import share_job_config
from hpc_agent.config.load import load
from hpc_agent.schedulers.job_environment import scrubbed
from hpc_agent.schedulers.slurm.commands import for_queries

DOOR = "variables of jobs"

_SECRET = "hunter2hunter2"
_NAMES = (
    *("CLEARML_API_SECRET_KEY", "CLEARML_AGENT_GIT_PASS", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "GH_PAT"),
    *(
        "SENTRY_DSN",
        "SLACK_WEBHOOK",
        "SLACK_WEBHOOK_URL",
        "SSHPASS",
        "MYSQL_PWD",
        "NPM_AUTH",
        "AUTH_HEADER",
        "AZURE_SAS",
    ),
    *("JWT", "MY_JWT", "COOKIE", "SESSION_COOKIE", "VAULT_TOKEN_ID", "OAUTH_CLIENT", "DOCKER_AUTH_CONFIG", "DBPASS"),
    *("NPM_CONFIG__AUTH", "HTTP_AUTHORIZATION", "LDAP_PASSWD", "API_TOKENS", "SSH_PRIVATE_KEY_B64", "DB_CREDENTIALS"),
)
_VALUES = (
    *("http://user:{}@proxy:3128", "https://{}@pypi.lab/simple", "http://user:pa/{}@proxy", "http://u:p@{}@proxy/"),
    *("postgresql://lab:{}@db/x", "redis://:{}@cache:6379/0", "git+https://{}@github.com/x", "amqps://a:{}@mq/%2f"),
    *("Server=db;Pwd={};", "host=db password={}", "AccountName=x;AccountKey={};", "-Dstore.keyStorePassword={} -Xmx1g"),
    *(
        "ghp_{}",
        "glpat-{}",
        "hf_{}",
        "sk-{}",
        "xoxb-{}",
        "eyJhbGciOiJIUzI1NiJ9.{}.abc",
        "-----BEGIN PRIVATE KEY-----\n{}",
    ),
    *("https://pypi.org/simple https://u:{}@lab/simple", "http://ok:80/ http://u:{}@h/", "HTTPS://U:{}@H"),
)


def _variable(name: str, value: str) -> Callable[[Path], str]:
    def attempt(_folder: Path) -> str:
        environ = {name: value, "PATH": "/bin"}
        seen = {**scrubbed(environ), **for_queries(environ)}
        return next((f"{key}={text}" for key, text in seen.items() if _SECRET in text), "")

    return attempt


def _file(variable: str) -> Callable[[Path], str]:
    """It must reach the job, in a file that only its owner can read."""

    def attempt(folder: Path) -> str:
        (folder / "clearml.conf").write_text("", encoding="utf-8")
        value = f"http://user:{_SECRET}@host:1"
        path = share_job_config(load(folder / "clearml.conf", {variable: value}), folder)
        if path.stat().st_mode & 0o077:
            return f"a file of mode {path.stat().st_mode & 0o777:o}"
        assert _SECRET in path.read_text(encoding="utf-8"), "the job does not get it"
        return ""

    return attempt


CASES: tuple[Case, ...] = (
    *(Case(f"the name {name}", _variable(name, _SECRET)) for name in _NAMES),
    *(Case(f"the value {value!a}", _variable("ANYTHING", value.format(_SECRET))) for value in _VALUES),
    *(Case(f"the file with {name}", _file(name)) for name in ("HTTPS_PROXY", "http_proxy", "PIP_EXTRA_INDEX_URL")),
)
