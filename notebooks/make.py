"""Make the notebooks in en/ and zh/ from their sources in src/: run each once, and write it in both languages.

A source is a script with cells (jupytext's percent format). A text cell has a `lang`; code is the same in both.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
SOURCES = [HERE / "src" / f"{name}.py" for name in (
    "2_train_and_read_curves", "1_photograph_to_pose", "3_own_keypoints", "4_pckh_by_hand",
)]  # fmt: skip
LANGUAGES = ("en", "zh")
TIMEOUT_S = 900  # of a cell


def read_source(path: Path) -> nbformat.NotebookNode:
    """A source as a notebook in both languages, with the cell that sets everything up in place of `setup`."""
    notebook = jupytext.read(path, fmt="py:percent")
    (setup,) = jupytext.read(HERE / "src" / "setup.py", fmt="py:percent").cells
    for number, cell in enumerate(notebook.cells):
        if cell.metadata.get("title") == "setup":
            cell.source = setup.source
        cell.id = f"{path.stem}-{number}"
    return notebook


def in_language(notebook: nbformat.NotebookNode, language: str) -> nbformat.NotebookNode:
    """The cells without a language and those in this one; no metadata that changes from run to run."""
    cells = [cell for cell in notebook.cells if cell.metadata.get("lang", language) == language]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    cells = [nbformat.from_dict({**cell, "metadata": {}}) for cell in cells]
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel)


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in the checkout; a cell that raises ends it with an error."""
    from nbclient import NotebookClient

    place = {"metadata": {"path": str(HERE)}}
    NotebookClient(notebook, timeout=TIMEOUT_S, startup_timeout=300, kernel_name="python3", resources=place).execute()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="sources, as 4_pckh_by_hand; default: all")
    args = parser.parse_args()
    strangers = set(args.names) - {path.stem for path in SOURCES}
    if strangers:
        parser.error(f"there is no source {min(strangers)}; there are {', '.join(path.stem for path in SOURCES)}")
    for path in SOURCES:
        if args.names and path.stem not in args.names:
            continue
        notebook = read_source(path)
        execute(notebook)
        for language in LANGUAGES:
            written = HERE / language / f"{path.stem}.ipynb"
            written.parent.mkdir(exist_ok=True)
            nbformat.write(in_language(notebook, language), written)
            print(f"=> {written.relative_to(HERE.parent)}: {written.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
