"""A script in which users wrote plain words only is not followed as bash reads it: it is what following it gives."""

from __future__ import annotations

from collections import Counter

from exploring import assert_enough, examples
from hypothesis import given
from hypothesis import strategies as st

from hpc_agent.errors import TemplateError
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.submission.task_text import ScriptText, TaskText, quoted_by_place, written

LANGUAGE = SbatchScript(SlurmSettings())
TEMPLATE_TEXTS = st.text(alphabet=" \n#$`'\"\\(){}[]<aE", max_size=8) | st.sampled_from(
    ["\n#SBATCH --job-name=", "cat <<EOF\n", "cat <", "EOF", "\nEOF\n", "$((", "${x:-", "case x in\n", "echo "]
)
WORDS = st.text(alphabet="aE0@%+=:,./_-", min_size=1, max_size=5) | st.sampled_from(["EOF", "E", "OF", "-"])
USER_TEXTS = st.one_of(WORDS, WORDS, WORDS, WORDS, st.text(alphabet="a <'\"$\n", max_size=4))


def user_text(text: str) -> TaskText:
    return TaskText(text, "task.name")


def test_every_script_is_what_following_it_gives() -> None:
    outcomes: Counter[str] = Counter()

    @examples(400)
    @given(st.lists(TEMPLATE_TEXTS | USER_TEXTS.map(user_text), max_size=8))
    def every_script_is_what_following_it_gives(pieces: list[str | TaskText]) -> None:
        script = ScriptText(pieces)
        try:
            expected = quoted_by_place(script, LANGUAGE)
        except TemplateError as error:
            outcomes["refused"] += 1
            assert _refusal(script) == str(error)
        else:
            outcomes["written"] += 1
            assert written(script, LANGUAGE) == expected

    every_script_is_what_following_it_gives()
    assert_enough(outcomes, "written", "refused")


def _refusal(script: ScriptText) -> str:
    try:
        return f"not refused: {written(script, LANGUAGE)}"
    except TemplateError as error:
        return str(error)
