"""What users wrote gets into scripts as one word, whatever a site's template does with it, or not at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task, TaskContainer
from hpc_agent.errors import TemplateError
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.submission.render import JobContext, Renderer

HOSTILE = (
    "$(touch owned)",
    "`touch owned`",
    "'; touch owned; '",
    '"; touch owned; "',
    "\\'; touch owned; \\'",
    "a b; touch owned #",
    "a & touch owned",
    "x\\",
    "#",
    "--flag",
    "ünï ☃ code",
    "a[$(touch owned)]",
    "}; touch owned; ${",
    ") ; touch owned; (",
    "EOF",
)
"""None has a line break: those are refused before."""


def render(folder: Path, template: str, text: str, resources: Resources | None = None) -> str:
    (folder / "site.j2").write_text("#!/bin/bash\n" + template + "\n")
    task = Task(
        TaskId("a" * 32),
        name=text,
        project=text,
        type=text,
        user=text,
        container=TaskContainer(text, text),
        properties={"x": text, text: "value"},
    )
    context = JobContext(
        task=task,
        attempt=attempt_for("c", QueueId("q"), task.id, "t"),
        queue_name=text,
        resources=resources or Resources(),
        run_dir=Path("/runs"),
        output=Path("/runs/job.out"),
        config_file=Path("/job.conf"),
        agent=["hpc-agent"],
    )
    return Renderer(SbatchScript(SlurmSettings()), [folder]).render("site.j2", context)


def run(folder: Path, script: str) -> str:
    # As bytes: the locale of the tests may not have a letter of it.
    done = subprocess.run(["bash", "-c", script.encode()], cwd=folder, capture_output=True, check=False)
    assert not (folder / "owned").exists(), script
    return done.stdout.decode()


ONE_WORD = (
    "{{ task.name }}",
    "{{ task['name'] }}",
    "{{ task.project }}",
    "{{ task.container.image }}",
    "{{ task.properties.x }}",
    "{{ task.properties['x'] }}",
    "{{ task.properties.y | default(task.name) }}",
    "{{ task.name | string }}",
    "{{ task.name | trim }}",
    "{{ task.name | quote }}",
    "{{ task.name | directive }}",
    "{{ task.name | replace('qqq', 'r') }}",
    "{{ '%s' | format(task.name) }}",
    "{{ task.name[:1000] }}",
    "{{ '' + task.name + '' }}",
    "{% set n = task.name %}{{ n }}",
    "{% set n %}{{ task.name }}{% endset %}{{ n }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(task.name) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ task.name }}{% endcall %}",
    "{{ task.name if task.name else 'none' }}",
    "{{ queue.name }}",
    "{{ [task.name] | first }}",
    "{{ {'a': task.name}.a }}",
    '"$(printf %s {{ task.name }})"',
)
"""Expressions that are the whole text, as one word."""


@pytest.mark.parametrize("expression", ONE_WORD)
def test_an_expression_prints_the_text_as_one_word(tmp_path: Path, expression: str) -> None:
    for text in HOSTILE:
        assert run(tmp_path, render(tmp_path, f"printf '<%s>' {expression}", text)) == f"<{text}>"


@pytest.mark.parametrize(
    "expression",
    [
        "{{ task.name | lower }}",
        "{{ task.name | upper }}",
        "{{ task.name | title }}",
        "{{ task.name | capitalize }}",
        "{{ task.name | truncate(9, true, '') }}",
        "{{ task.name | center(90) }}",
        "{{ task.name | replace(\"'\", '') }}",
        "{{ task.name | replace('a', task.name) }}",
        "{{ task.name[:9] }}",
        "{{ task.name[3:] }}",
        "{{ task.name[0] }}",
        "{{ 'n-' + task.name }}",
        "{{ task.name + '-' + task.project }}",
        "{{ '%s-%s' | format('a', task.name) }}",
        "{% set n %}a{{ task.name }}b{% endset %}{{ n }}",
        "{% for c in task.name %}{{ c }}{% endfor %}",
        "prefix-{{ task.name }}-suffix",
        "{{ task.properties.items() | first | first }}",
        "{% for k in task.properties %}{{ k }}{% endfor %}",
    ],
)
def test_what_an_expression_makes_of_it_is_one_word_too(tmp_path: Path, expression: str) -> None:
    for text in HOSTILE:
        words = run(tmp_path, render(tmp_path, f"printf '<%s>' {expression}", text))
        assert words.startswith("<")
        assert words.endswith(">"), words
        assert words.count("<") == 1


@pytest.mark.parametrize(
    "expression",
    [
        "{{ 'n-' ~ task.name }}",
        "{{ task.name ~ '' }}",
        "{{ 'n-%s' % task.name }}",
        "{{ task.name | safe }}",
        "{{ task.name | e }}",
        "{{ task.name | escape | safe }}",
        "{{ [task.name, task.project] | join('-') }}",
        "{{ task.name | list | join }}",
        "{{ task.name.split() | first }}",
        "{{ task.name.lower() }}",
        "{{ 'n-{}'.format(task.name) }}",
        "{{ task.name.format() }}",
        "{{ ''.join([task.name]) }}",
        "{{ [task.name] }}",
        "{{ {'a': task.name} }}",
        "{{ task }}",
        "{{ task.properties }}",
        "{{ task.properties | dictsort | string }}",
        "{{ task | tojson }}",
        "{{ task.name | tojson }}",
        "{{ task.name | urlencode }}",
        "{{ task.name | wordwrap(5) }}",
        "{{ task.name | indent }}",
        "{{ task.name | striptags }}",
        "{{ task.name | pprint }}",
        "{{ task.name | xmlattr }}",
        "{{ task.name | batch(3) | list | string }}",
        "{{ [task.name] | map('string') | map('urlencode') | first }}",
        "{% filter upper %}{{ task.name }}{% endfilter %}",
        "{% filter indent %}{{ task.name }}{% endfilter %}",
        "{% set n %}{{ task.name }}{% endset %}{{ n[:9] }}",
        "{% set n %}{{ task.name }}{% endset %}{{ n | replace(\"'\", '') }}",
        "{% set n %}{{ task.name }}{% endset %}{{ n ~ 'x' }}",
        "{% macro m() %}{{ task.name }}{% endmacro %}{{ m() | truncate(5) }}",
    ],
)
def test_what_would_lose_the_quoting_fails_with_a_sentence(tmp_path: Path, expression: str) -> None:
    for text in HOSTILE:
        with pytest.raises(TemplateError, match=r"the job template site\.j2 .*"):
            render(tmp_path, f"printf '<%s>' {expression}", text)
    with pytest.raises(TemplateError, match=r"task\.name cannot become part of other text .*: print it by itself"):
        render(tmp_path, "{{ 'n-' ~ task.name }}", "x")


@pytest.mark.parametrize(
    "template",
    [
        'echo "{{ task.name }}"',
        "echo '{{ task.name }}'",
        "echo $'{{ task.name }}'",
        'echo "a $(echo "{{ task.name }}")"',
        "echo `echo {{ task.name }}`",
        'echo "`echo {{ task.name }}`"',
        "cat <<EOF\n{{ task.name }}\nEOF",
        "cat <<-EOF\n\t{{ task.name }}\n\tEOF",
        "cat <<'EOF'\n{{ task.name }}\nEOF",
        'cat <<"E F"\n{{ task.name }}\nE F',
        "cat <<A - <<B\nx\nA\n{{ task.name }}\nB",
        "x=$(cat <<EOF\n{{ task.name }}\nEOF\n)",
        "echo ${y:-{{ task.name }}}",
        'echo "${y:-"{{ task.name }}"}"',
        "echo $(( {{ task.name }} ))",
        "(( x = {{ task.name }} ))",
        "echo \\{{ task.name }}",
        "echo ${{ task.name }}",
        'echo "a\nb {{ task.name }}"',
        "# Don't\necho \"it's {{ task.name }}\"",
        'echo "$(case x in x) echo "{{ task.name }}";; esac)"',
        '{% set n %}{{ task.name }}{% endset %}echo "{{ n }}"',
        'x="$(case $y in\nw) echo "{{ task.name }}";; esac)"',
        "srun a \\\n# it's b\necho '{{ task.name }}'",
        'echo "run \\$(hostname {{ task.name }})"',
        'echo "$$(hostname {{ task.name }})"',
        "echo \\$'a\\'; echo '{{ task.name }}'",
        "names[{{ task.name }}]=1",
        "names=([{{ task.name }}]=1)",
        "echo $[ {{ task.name }} ]",
        "cat <<EOF\na \\\nEOF\n{{ task.name }}\nEOF",
        'cat <<E"O"F\nE\n{{ task.name }}\nEOF',
        'cat <<EOF "a\nb"\nEOF\necho "{{ task.name }}"',
        'f() { echo "${x#\'"\'}"; }\necho "{{ task.name }}"',
        '#SBATCH --comment="{{ task.name }}"',
        "#SBATCH --comment='{{ task.name }}'",
        "#SBATCH --comment=\\{{ task.name }}",
    ],
)
def test_inside_quotes_of_the_template_only_plain_words_pass(tmp_path: Path, template: str) -> None:
    assert "plain_word-1" in render(tmp_path, template, "plain_word-1")
    for text in HOSTILE:
        if text in ("--flag", "EOF"):
            continue  # plain words
        with pytest.raises(TemplateError, match=r" on line \d+ of the script is inside quotes"):
            run(tmp_path, render(tmp_path, template, text))


@pytest.mark.parametrize(
    "template",
    [
        "# Task: {{ task.name }}",
        "# It's {{ task.name }}",
        "echo 'it is' \"quo'ted\" {{ task.name }}",
        'echo "it\'s" ; echo {{ task.name }}',
        "cat <<EOF\n\"it's\nEOF\necho {{ task.name }}",
        "cat <<< 'a'\necho {{ task.name }}",
        "echo $((1 << 2))\necho {{ task.name }}",
        "echo $# ${PATH#*:} # it's\necho {{ task.name }}",
        "case $x in\n a) echo 'a';;\nesac\necho {{ task.name }}",
        "f() { echo \"$(date '+%s')\"; }\necho {{ task.name }}",
        'echo "a \\" b" \'c\\\' {{ task.name }}',
        "echo a \\\n  {{ task.name }}",
        "srun a \\\n# it's b\necho {{ task.name }}",
        'echo "\\$HOME \\$(date)" $$ {{ task.name }}',
        "if [ {{ task.name }} = x ] || [[ $y == {{ task.name }} ]]; then echo x; fi",
        'a=(1 2); a[1]=3; ls -d x[0-9]*.py; echo "${a[@]}" {{ task.name }}',
        "case $x in [a-z]*) y=$(date);; esac; echo {{ task.name }}",
        'echo $(( (1 << 2) )) "$(echo \'"\')" {{ task.name }}',
    ],
)
def test_next_to_quotes_it_is_as_good_as_anywhere(tmp_path: Path, template: str) -> None:
    for text in HOSTILE:
        script = render(tmp_path, template, text)
        assert subprocess.run(["bash", "-n", "-c", script.encode()], check=False).returncode == 0
        run(tmp_path, script)


def test_text_that_would_end_a_here_document_is_refused(tmp_path: Path) -> None:
    template = "cat <<EOF\n{{ task.name }}{{ task.user }}\ntouch owned\nEOF"
    for text in ("EOF", "E"):
        with pytest.raises(TemplateError, match=r"task\.name on line 3 .* where the here-document around it could end"):
            render(tmp_path, template, text)
    assert run(tmp_path, render(tmp_path, template.replace("{{", "name: {{", 1), "EOF")).startswith("name: EOFEOF\n")


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\0", "\t", "\x0b", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"]
)
@pytest.mark.parametrize("template", ["# {{ task.name }}", "#SBATCH --comment={{ task.name }}", "echo {{ task.name }}"])
def test_a_control_character_is_refused_wherever_it_would_be(tmp_path: Path, template: str, character: str) -> None:
    with pytest.raises(TemplateError, match=rf"task\.name on line 2 .* \(U\+{ord(character):04X}\)"):
        render(tmp_path, template, f"a{character}#SBATCH --partition=urgent")


def test_decisions_by_the_text_work(tmp_path: Path) -> None:
    template = (
        "{% if task.name == 'a b' and 'a' in task.name and task.name.startswith('a') and task.name.endswith('b') %}"
        "echo {{ task.name | length }} {{ task.properties.x | int + 1 }}{% endif %}"
    )
    with pytest.raises(TemplateError):
        render(tmp_path, "{{ task.properties.nothing }}", "a b")
    assert "echo 3 1" in render(tmp_path, template.replace(" | int", " | length - 3"), "a b")
    assert run(tmp_path, render(tmp_path, "echo {{ task.properties.x | int + 1 }}", "41")) == "42\n"


def test_what_a_task_chose_of_resources_is_its_text(tmp_path: Path) -> None:
    """A constraint may hold & and |, which end a command."""
    wanted = replace(Resources(), constraint="a&touch")
    assert "echo 'a&touch'\n" in render(tmp_path, "echo {{ resources.constraint }}", "x", wanted)
    assert "--constraint=a&touch\n" in render(tmp_path, "#SBATCH --constraint={{ resources.constraint }}", "x", wanted)


def test_text_of_the_site_can_be_put_together_as_ever(tmp_path: Path) -> None:
    template = "{% set line %}module load cuda{% endset %}{{ line | upper }} {{ 'a b' ~ '/c' }} {{ job_name[:7] }}"
    assert "MODULE LOAD CUDA a b/c clearml\n" in render(tmp_path, template, "x")


def test_every_filter_of_jinja_keeps_the_quoting_or_fails(tmp_path: Path) -> None:
    text = "'; touch owned; '"
    rendered = set()
    for name in Renderer(SbatchScript(SlurmSettings()))._jinja.filters:
        for arguments in ("", "('a')", "('a', 'b')", "(5)", "(2, 'x')", "(attribute='x')"):
            try:
                script = render(tmp_path, f"echo {{{{ task.name | {name}{arguments} }}}}", text)
            except TemplateError:
                continue
            run(tmp_path, script)
            rendered.add(name)
    assert rendered >= {"lower", "upper", "title", "reverse", "replace", "trim", "truncate", "center", "default"}
