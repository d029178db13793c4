"""Names and other texts of a task, in a site's sbatch template."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from attacks.case import Case
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task, TaskContainer
from hpc_agent.errors import TemplateError
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.submission.render import JobContext, Renderer
from hpc_agent.tracking.sbatch_options import directives

DOOR = "task fields"

_TEXTS = {
    "a line break": "a\n#SBATCH --partition=urgent\ntouch owned\n#",
    "a substitution": "$(touch owned)",
    "quotes": "'; touch owned; '\"; touch owned; \"'; touch owned; #",
    "two options": 'x" --partition=urgent "\' --partition=urgent --time=9:0:0',
}
_EXPRESSIONS = (
    *("name", "name | lower", "name | upper", "name | trim", "name | title", "name | capitalize", "name[:60]"),
    *("name[1:]", "name | replace('a', 'b')", "name | replace(\"'\", '')", "name | truncate(12, true, '')"),
    *("name | string", "name | safe", "name | e", "name | list | join", "name | format", "name | default('x')"),
    *("name ~ ''", "name + ''", "name.split() | join(' ')", "name.lower()", "name.format()"),
    *("project", "type", "user", "container.image", "container.arguments", "properties.x", "properties"),
)
_TEMPLATES = {
    "in a comment": "# Task: {{{{ task.{} }}}}",
    "in a command": "echo {{{{ task.{} }}}}",
    "on an #SBATCH line": "#SBATCH --comment={{{{ task.{} }}}}",
}
_CONTEXTS = {
    "double quotes": 'echo "{{ task.name }}"',
    "single quotes": "echo '{{ task.name }}'",
    "ANSI quotes": "echo $'{{ task.name }}'",
    "quotes in a substitution": 'echo "$(echo "{{ task.name }}")"',
    "back-ticks": "echo `echo {{ task.name }}`",
    "a here-document": "cat <<EOF\n{{ task.name }}\nEOF",
    "a parameter's default": 'echo "${x:-{{ task.name }}}"',
    "arithmetic": "echo $(( {{ task.name }} ))",
    "behind a backslash": "echo \\{{ task.name }}",
    "behind a dollar": "echo ${{ task.name }}",
    "quotes on an #SBATCH line": '#SBATCH --comment="{{ task.name }}"',
    "a list": "echo {{ [task.name, task.project] | join(' ') }}",
    "a dict": "echo {{ {'a': task.name} }}",
    "a sum": "echo {{ 'n-' ~ task.name }}",
    "a formatted text": "echo {{ 'n-%s' % task.name }}",
    "a set block that is cut": "{% set n %}{{ task.name }}{% endset %}echo {{ n[:9] }}",
    "a filter block": "{% filter replace(\"'\", '') %}echo {{ task.name }}{% endfilter %}",
    "a macro": "{% macro m() %}{{ task.name }}{% endmacro %}echo {{ m() | replace(\"'\", '') }}",
    "names of properties": "{% for k, v in task.properties.items() %}echo {{ k }}={{ v }}\n{% endfor %}",
    "the queue": "echo {{ queue.name | lower }}",
    "the constraint": "echo {{ resources.constraint }}",
    "an exported variable": "export NAME={{ task.name | lower }}; echo $NAME",
    "a case in a substitution": 'x="$(case a in\na) echo "{{ task.name }}";; esac)"',
    "quotes after a comment behind a joined line": "echo a \\\n# it's b\necho '{{ task.name }}'",
    "an escaped substitution": 'echo "\\$(hostname {{ task.name }})"',
    "quotes after an escaped dollar": "echo \\$'a\\'; echo '{{ task.name }}'",
    "an index": "names[{{ task.name }}]=1",
    "an index of a list": "names=([{{ task.name }}]=1)",
    "arithmetic in brackets": "echo $[ {{ task.name }} ]",
    "a here-document with joined lines": "cat <<EOF\na \\\nEOF\n{{ task.name }}\nEOF",
    "a here-document with a composed end": 'cat <<E"O"F\nE\n{{ task.name }}\nEOF',
    "quotes after a pattern with quotes": 'f() { echo "${x#\'"\'}"; }\necho "{{ task.name }}"',
}


def _attempt(template: str, text: str) -> Callable[[Path], str]:
    def attempt(folder: Path) -> str:
        (folder / "site.j2").write_text(f"#!/bin/bash\n#SBATCH --time=1\n{template}\n", encoding="utf-8")
        try:
            script = Renderer(SbatchScript(SlurmSettings()), [folder]).render("site.j2", _context(folder, text))
        except TemplateError:
            return ""
        options = directives(script)
        if set(options) - {"time", "comment"} or options.get("time") != "1":
            return f"options of sbatch: {options}"
        subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, timeout=20, check=False)
        return "a command of the script" if (folder / "owned").exists() else ""

    return attempt


def _context(folder: Path, text: str) -> JobContext:
    task = Task(
        TaskId("a" * 32),
        name=text,
        project=text,
        type=text,
        user=text,
        container=TaskContainer(text, text),
        properties={"x": text, text: "1"},
    )
    return JobContext(
        task=task,
        attempt=attempt_for("cluster", QueueId("q"), task.id, "added"),
        queue_name=text,
        resources=Resources(constraint=text),
        run_dir=folder,
        output=folder / "job.out",
        config_file=folder / "job.conf",
        agent=["hpc-agent"],
    )


CASES: tuple[Case, ...] = (
    *(
        Case(f"{what} {where} by task.{expression}", _attempt(template.format(expression), text))
        for expression in _EXPRESSIONS
        for where, template in _TEMPLATES.items()
        for what, text in _TEXTS.items()
        if what == "a line break" or where == "in a command" or expression in ("name", "name | string")
    ),
    *(
        Case(f"{what} in {where}", _attempt(template, text))
        for where, template in _CONTEXTS.items()
        for what, text in _TEXTS.items()
    ),
)
