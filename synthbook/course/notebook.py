"""Notebooks as files: read, brought into one stable form, written, and asked what they carry.

A notebook is the plain dictionary of its JSON (nbformat 4), with every multi-line text joined.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from synthbook.core.errors import DataError

Notebook = dict[str, Any]
Cell = dict[str, Any]

KEY = "synthbook"  # the package's own corner of notebook and cell metadata
CARD = re.compile(r"(<!-- measured -->).*?(<!-- /measured -->)", re.DOTALL)

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
_FOLDERS = re.compile(r"(?:/[^\s:'\"/]+)+/(?=[^\s:'\"/]+\.py:\d+)")


def read(path: Path) -> Notebook:
    """Read a notebook; `DataError` names the file when it is missing, cut off, or no notebook of format 4."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["nbformat"] != 4:
            raise ValueError(f"nbformat {notebook['nbformat']}, not 4")
        for cell in notebook["cells"]:
            _join_lines(cell)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a notebook of format 4 ({error}): restore it from version control") from None
    return dict(notebook)


def dumps(notebook: Notebook) -> str:
    """The file's text, laid out as Jupyter lays it out, so that a diff shows what changed and nothing else."""
    notebook = json.loads(json.dumps(notebook))
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = output["text"].splitlines(keepends=True)
            for mime, value in output.get("data", {}).items():
                if isinstance(value, str):
                    output["data"][mime] = value.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def code_cells(notebook: Notebook) -> list[Cell]:
    """The code cells that hold code; Jupyter never runs a blank one."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["source"].strip()]


def is_whole(notebook: Notebook) -> bool:
    """Whether every code cell was executed, in order from 1, and none ended in an error."""
    cells = code_cells(notebook)
    counts = [cell.get("execution_count") for cell in cells]
    errors = any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))
    return counts == list(range(1, len(cells) + 1)) and not errors


def measured(notebook: Notebook) -> dict[str, Any]:
    """What the runner wrote into the metadata: fingerprint, profile, minutes, peak_mib, claims; empty if it has not."""
    found = notebook.get("metadata", {}).get(KEY, {})
    return found if isinstance(found, dict) else {}


def normalise(notebook: Notebook) -> Notebook:
    """Bring an executed notebook into its committed form, in place, and return it.

    Drops timing metadata and widget state, joins neighbouring outputs of one stream, gives every cell an id, and
    names kernel and language without their versions.
    """
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"] |= {"kernelspec": dict(_KERNEL), "language_info": dict(_LANGUAGE)}
    taken = {cell.get("id") for cell in notebook["cells"]}
    for number, cell in enumerate(notebook["cells"]):
        if "id" not in cell:
            cell["id"] = next(name for name in _names(number) if name not in taken)
            taken.add(cell["id"])
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] == "code":
            cell["outputs"] = _merge_streams(cell.get("outputs", []))
    if notebook["nbformat_minor"] < 5:  # the first version whose cells have ids
        notebook["nbformat_minor"] = 5
    return notebook


def write_card(notebook: Notebook) -> None:
    """Put the measured time and memory between the header card's markers, where the first cell has them."""
    facts, cells = measured(notebook), notebook["cells"]
    if facts and cells and cells[0]["cell_type"] == "markdown":
        text = f"{max(facts['minutes'], 0.1):.1f} min, {facts['peak_mib']} MiB"
        cells[0]["source"] = CARD.sub(rf"\g<1>{text}\g<2>", cells[0]["source"])


def refresh(executed: Notebook, source: Notebook) -> Notebook:
    """The source's words and metadata with the outputs of an executed copy whose code is the same."""
    fresh: Notebook = json.loads(json.dumps(source))
    for cell, done in zip(code_cells(fresh), code_cells(executed), strict=True):
        cell["outputs"], cell["execution_count"] = done["outputs"], done["execution_count"]
    fresh["metadata"][KEY] = measured(executed)
    write_card(fresh)
    return normalise(fresh)


def exports(notebook: Notebook) -> dict[str, bytes | None]:
    """Path to PNG bytes, for every code cell whose metadata asks for export; None where it shows no picture."""
    return {
        cell["metadata"][KEY]["export"]: _picture(cell)
        for cell in code_cells(notebook)
        if "export" in cell["metadata"].get(KEY, {})
    }


def _picture(cell: Cell) -> bytes | None:
    for output in cell.get("outputs", []):
        if "image/png" in output.get("data", {}):
            return base64.b64decode(output["data"]["image/png"])
    return None


def _names(number: int) -> list[str]:
    return [f"cell-{number}", *(f"cell-{number}-{k}" for k in range(1, 10_000))]


def _join_lines(cell: Cell) -> None:
    cell["source"] = _joined(cell["source"])
    cell.setdefault("metadata", {})
    for output in cell.get("outputs", []):
        if "text" in output:
            output["text"] = _joined(output["text"])
        for mime, value in output.get("data", {}).items():
            if not mime.endswith("json"):
                output["data"][mime] = _joined(value)


def _joined(text: Any) -> Any:
    return "".join(text) if isinstance(text, list) else text


def _merge_streams(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    merged: list[dict[str, Any]] = []
    for output in outputs:
        same = merged and output["output_type"] == merged[-1]["output_type"] == "stream"
        if same and output["name"] == merged[-1]["name"]:
            merged[-1]["text"] += output["text"]
        else:
            merged.append(dict(output))
    for output in merged:
        if output.get("name") == "stderr":
            output["text"] = _stable_stderr(output["text"])
    return merged


def _stable_stderr(text: str) -> str:
    """Warnings without the folders of one machine, progress bars as they ended."""
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _FOLDERS.sub("", "\n".join(lines))
