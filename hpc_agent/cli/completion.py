"""``hpc-agent completion``: shell completion of commands and flags."""

from __future__ import annotations

import click

from hpc_agent.cli.shared_options import HELP

PROGRAMS = ("hpc-agent", "hpc-task")


@click.command(context_settings=HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion of hpc-agent and hpc-task for a shell.

    \b
    bash, in ~/.bashrc:                       eval "$(hpc-agent completion bash)"
    zsh, in ~/.zshrc, after compinit:         eval "$(hpc-agent completion zsh)"
    fish:   hpc-agent completion fish > ~/.config/fish/conf.d/hpc-agent.fish
    """
    from click.shell_completion import get_completion_class

    for program in PROGRAMS:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        completion = get_completion_class(shell)
        assert completion is not None, "click knows these three"
        # Only the names are asked for here: what completes is asked of the program itself at each press of the key.
        made = completion(click.Group(program), {}, program, variable)
        click.echo(made.source_template % made.source_vars())
