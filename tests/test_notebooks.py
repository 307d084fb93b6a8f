"""The notebooks: both languages are what their one source says, with outputs; and they run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
spec = importlib.util.spec_from_file_location("make_notebooks", NOTEBOOKS / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
SOURCES = [path.stem for path in make.SOURCES]  # in the order in which later ones find what earlier ones left
MAX_BYTES = 300_000


def test_every_source_is_listed():
    assert sorted(SOURCES) == sorted(path.stem for path in (NOTEBOOKS / "src").glob("[0-9]*.py"))


@pytest.mark.parametrize("language", make.LANGUAGES)
@pytest.mark.parametrize("name", SOURCES)
def test_committed_notebooks_are_their_source_with_outputs(name, language):
    path = NOTEBOOKS / language / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    source = make.in_language(make.read_source(NOTEBOOKS / "src" / f"{name}.py"), language)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in source.cells
    ], "run notebooks/make.py"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert {"stream", "display_data"} <= {output.output_type for output in outputs}
    assert "error" not in {output.output_type for output in outputs}
    assert path.stat().st_size < MAX_BYTES
    text = path.read_text(encoding="utf-8")
    assert str(NOTEBOOKS.parent) not in text and "Warning" not in text


def test_both_languages_say_as_much():
    for path in make.SOURCES:
        languages = [cell.metadata["lang"] for cell in make.read_source(path).cells if cell.cell_type == "markdown"]
        assert languages == ["en", "zh"] * (len(languages) // 2), path


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_notebooks_run(name):
    pytest.importorskip("nbclient")
    make.execute(make.read_source(NOTEBOOKS / "src" / f"{name}.py"))
