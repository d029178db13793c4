"""Runs a Jupyter notebook with IPython: magics, ``!`` and top-level await work, and what cells print comes as it is
printed. Its text is handed to the task's own Python with ``-c``, so it stands alone.
"""

from __future__ import annotations

RUNNER = """\
import json, sys

def main(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            notebook = json.load(file)
    except ValueError as error:
        sys.exit(f"{path} is no notebook: it cannot be read as JSON: {error}")
    if not isinstance(notebook, dict):
        sys.exit(f"{path} is no notebook: its JSON has no cells")
    metadata = notebook.get("metadata") or {}
    named = (metadata.get("language_info") or {}).get("name") or (metadata.get("kernelspec") or {}).get("language")
    if named and not named.lower().startswith(("python", "ipython")):
        sys.exit(f"{path} is a notebook for {named}: only those for Python can be run")
    cells = notebook.get("cells")
    if cells is None:  # notebooks before version 4
        cells = [cell for sheet in notebook.get("worksheets", []) for cell in sheet["cells"]]
    try:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config
    except ImportError:
        sys.exit("IPython is not among the packages of the task, and a notebook cannot be run without it")
    config = Config()
    config.HistoryManager.enabled = False  # a database in the home folder, which many jobs share
    shell = InteractiveShell.instance(config=config, colors="NoColor")
    ended = []
    shell.ask_exit = lambda: ended.append(True)  # exit() and quit(): as in Jupyter, after their cell
    for cell in cells:
        source = cell.get("source", cell.get("input", ""))
        text = source if isinstance(source, str) else "".join(source)
        tags = (cell.get("metadata") or {}).get("tags", ())
        if cell.get("cell_type") != "code" or not text.strip() or "skip-execution" in tags:
            continue
        result = shell.run_cell(text, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, SystemExit):
            sys.exit(error.code)
        if error and "raises-exception" not in tags:
            sys.exit(1)
        if ended:
            break

sys.argv = sys.argv[1:]
main(sys.argv[0])
"""


def command(python: list[str], notebook: str, arguments: tuple[str, ...]) -> list[str]:
    """``python``: the interpreter with its options; ``notebook``: the file, relative to where it runs."""
    return [*python, "-c", RUNNER, notebook, *arguments]
