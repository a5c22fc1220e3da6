"""The runner on small books. Expectations come from what the cells say, the file system and the process table."""

from __future__ import annotations

import base64
import fcntl
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from synthbook.core.errors import DataError, SynthbookError
from synthbook.core.storage import read_provenance, sha256_file
from synthbook.course import notebook as nb
from synthbook.course.runner import NotebookRun, RunConfig, build_site, run_course, run_notebooks
from synthbook.datasets import data_folder
from tests.course.conftest import CARD, Book

CLAIM = "from synthbook.course import claim\nclaim({id!r}, part={part!r}, measured={m}, expected={m}, tolerance=0)"


def jobs_of(book: Book, settings: RunConfig | None = None) -> dict[str, NotebookRun]:
    return {job.name: job for job in run_notebooks(book, book.sources(), settings or RunConfig())}


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Book, dict[str, NotebookRun], dict[str, bytes]]:
    """One run over notebooks that fail in different ways, and two that do not."""
    root = tmp_path_factory.mktemp("mixed")
    (root / "notebooks").mkdir()
    (root / "pyproject.toml").touch()
    book = Book(root)
    book.write("01_good", "import os, sys\nprint('first')\nprint('second')\nos.getcwd()", "sys.executable", "")
    book.write("02_raises", "a = 0", "b = 1 / a", "print('never')")
    book.write("03_hangs", "import time", "time.sleep(600)")
    book.write("04_dies", "import os", "os._exit(7)")
    book.write("05_is_killed", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    book.write("06_lets_pass", "1 / 0")
    notebook = nbformat.read(book.notebooks / "06_lets_pass.ipynb", as_version=4)
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, book.notebooks / "06_lets_pass.ipynb")
    (book.notebooks / "07_cut_off.ipynb").write_text('{"cells": [{"cell_')
    book.write("08_environment", "import os\nprint(*(os.environ[n] for n in ('OMP_NUM_THREADS', 'SYNTHBOOK_PROFILE')))")
    before = {path.name: path.read_bytes() for path in book.sources()}
    return book, jobs_of(book, RunConfig(cell_timeout=2)), before


@pytest.mark.slow
def test_one_failure_does_not_stop_the_others(mixed: tuple[Book, dict[str, NotebookRun], dict[str, bytes]]) -> None:
    statuses = {name: job.status for name, job in mixed[1].items()}
    assert statuses.pop("01_good") == statuses.pop("08_environment") == "done"
    assert set(statuses.values()) == {"failed"} and len(statuses) == 6


def test_each_failure_says_what_happened(mixed: tuple[Book, dict[str, NotebookRun], dict[str, bytes]]) -> None:
    failures = {name: job.failure for name, job in mixed[1].items() if job.failure}
    raised = failures["02_raises"]
    assert (raised.cell, raised.source) == (2, "b = 1 / a") and "ZeroDivisionError" in raised.traceback
    hung = failures["03_hangs"]
    assert (hung.cell, hung.source) == (2, "time.sleep(600)") and "still running after 2 s" in hung.reason
    assert "the kernel died" in failures["04_dies"].reason and "exit code 7" in failures["04_dies"].reason
    assert "SIGKILL" in failures["05_is_killed"].reason and "memory" in failures["05_is_killed"].reason
    assert "raises-exception" in failures["06_lets_pass"].reason
    assert "07_cut_off.ipynb is not a notebook" in failures["07_cut_off"].reason


def test_only_whole_notebooks_are_written_as_done(mixed: tuple[Book, dict[str, NotebookRun], dict[str, bytes]]) -> None:
    book = mixed[0]
    assert {path.name for path in book.copies.iterdir()} == {
        "01_good.ipynb",
        "08_environment.ipynb",
        *(f"{n}.failed.ipynb" for n in ("02_raises", "03_hangs", "04_dies", "05_is_killed", "06_lets_pass")),
    }
    partial = nbformat.read(book.copies / "02_raises.failed.ipynb", as_version=4)
    assert [cell.execution_count for cell in partial.cells[1:]] == [1, 2, None]
    assert "fingerprint" not in partial.metadata.synthbook


def test_notebooks_are_never_touched_without_update(
    mixed: tuple[Book, dict[str, NotebookRun], dict[str, bytes]],
) -> None:
    book, _, before = mixed
    assert {path.name: path.read_bytes() for path in book.notebooks.iterdir()} == before


def test_cells_run_in_this_interpreter_beside_the_sources(
    mixed: tuple[Book, dict[str, NotebookRun], dict[str, bytes]],
) -> None:
    book = mixed[0]
    first, second, blank = book.copy("01_good")["cells"][1:]
    assert first.outputs[0] == {"name": "stdout", "output_type": "stream", "text": "first\nsecond\n"}
    assert first.outputs[1].data["text/plain"] == repr(str(book.notebooks))
    assert second.outputs[0].data["text/plain"] == repr(sys.executable)
    assert (second.execution_count, blank.execution_count) == (2, None)
    assert book.copy("08_environment")["cells"][1].outputs[0].text == "1 quick\n"


def test_copies_are_valid_and_stable(mixed: tuple[Book, dict[str, NotebookRun], dict[str, bytes]]) -> None:
    copy = mixed[0].copy("01_good")
    nbformat.validate(copy)
    assert copy["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert "version" not in copy["metadata"]["language_info"]
    assert all("execution" not in cell.metadata for cell in copy["cells"])
    text = (mixed[0].copies / "01_good.ipynb").read_text()
    assert nbformat.writes(copy) + "\n" == text  # laid out as Jupyter lays it out


def odd(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        notebook = json.loads(path.read_text())
        change(notebook)
        path.write_text(json.dumps(notebook))

    return write


def facts(**found: Any) -> Callable[[Path], object]:
    return odd(lambda notebook: notebook["metadata"].update(synthbook=found))


def in_place_of(path: Path, run_course: Callable[[Path], object]) -> None:
    path.unlink()
    run_course(path)


ODD = {  # what is odd about a notebook, and the reason for its failure; none where it can run all the same
    "no metadata": (odd(lambda n: n.pop("metadata")), ""),
    "no minor version": (odd(lambda n: n.pop("nbformat_minor")), ""),
    "no outputs": (odd(lambda n: n["cells"][1].pop("outputs")), ""),
    "minutes in words": (facts(minutes="two", peak_mib=[]), ""),
    "minutes without end": (facts(minutes=float("inf"), fingerprint=1), ""),
    "claims in words": (facts(claims="C7.2-1"), ""),
    "rows without a part": (facts(claims=[{"id": "C7.2-1"}, 1, None]), ""),
    "facts that are a list": (odd(lambda n: n["metadata"].update(synthbook=[])), ""),
    "null in a cell": (
        odd(lambda n: n["cells"][1]["metadata"].update(synthbook=None)),
        "cell 2: metadata.synthbook is",
    ),
    "an export without a path": (
        odd(lambda n: n["cells"][1]["metadata"].update(synthbook={"export": 1})),
        "export is '1'",
    ),
    "a cell without its kind": (odd(lambda n: n["cells"][1].pop("cell_type")), "cell 2 lacks cell_type"),
    "a cell that is text": (odd(lambda n: n["cells"].append("x = 1")), "cell 3 is 'x = 1', not an object"),
    "lines that are numbers": (odd(lambda n: n["cells"][1].update(source=[1])), "a line of cell 2: source is '1'"),
    "metadata null": (odd(lambda n: n.update(metadata=None)), "the notebook: metadata is 'None'"),
    "tags null": (odd(lambda n: n["cells"][1]["metadata"].update(tags=None)), "TypeError"),
    "an older format": (odd(lambda n: n.update(nbformat=3)), "nbformat is 3, not 4"),
    "no notebook": (lambda path: path.write_text("[]"), "the file is '[]', not an object"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe"), "mend or restore it"),
    "a folder": (lambda path: in_place_of(path, Path.mkdir), "a folder.ipynb: Is a directory"),
    "a link to itself": (lambda path: in_place_of(path, lambda p: p.symlink_to(p)), "Too many levels"),
    "a link to nothing": (
        lambda path: in_place_of(path, lambda p: p.symlink_to("nowhere")),
        "a link to nothing.ipynb: No such file",
    ),
}


@pytest.fixture(scope="module")
def odd_ones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NotebookRun]:
    root = tmp_path_factory.mktemp("odd")
    (root / "notebooks").mkdir()
    (root / "pyproject.toml").touch()
    book = Book(root)
    for name, (spoil, _) in ODD.items():
        spoil(book.write(name, "1"))
    outcome = run_course(book, book.sources(), RunConfig(), callback=unwatched, site=False)
    assert outcome.board is not None and not outcome.errors
    return {job.name: job for job in outcome.jobs}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_one_odd_notebook_does_not_stop_the_others(name: str, odd_ones: dict[str, NotebookRun]) -> None:
    job, reason = odd_ones[name], ODD[name][1]
    if reason:
        assert job.status == "failed" and reason in str(job.failure)
    else:
        assert job.status == "done", job.failure


@pytest.mark.slow
def test_a_copy_with_a_matching_fingerprint_but_no_time_runs_again(book: Book) -> None:
    book.write("01", "1")
    jobs_of(book)
    path = book.copies / "01.ipynb"
    odd(lambda notebook: notebook["metadata"]["synthbook"].pop("minutes"))(path)
    assert jobs_of(book)["01"].status == "done"


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_still_json(book: Book) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    from synthbook.course.claims import load_claims

    claim = next(claim for claim in load_claims().values() if claim.tier == "exact")
    lines = [
        f"claim({claim.id!r}, part={claim.parts[0].id!r}, measured=float({value!r}), expected=1)"
        for value in ("nan", "-inf")
    ]
    book.write(
        "01", "from synthbook.course import claim", f"try:\n    {lines[0]}\nexcept AssertionError: pass", lines[1]
    )
    outcome = run_course(book, book.sources(), RunConfig(), callback=unwatched, site=False)
    for path in (book.copies / "01.failed.ipynb", book.build / "claims.json"):
        json.loads(path.read_text(), parse_constant=refuse)
    rows = nb.run_metadata(nb.read(book.copies / "01.failed.ipynb"))["claims"]
    assert [row["measured"] for row in rows] == ["NaN", "-Infinity"]
    assert outcome.board is not None
    assert next(row for row in outcome.board.rows if row["id"] == claim.id)["holds"] is False


@pytest.mark.slow
def test_an_error_of_the_runner_is_not_called_the_kernels_death(book: Book) -> None:
    book.write("01", "1")
    job = jobs_of(book, RunConfig(cell_timeout=float("inf")))["01"]
    assert job.failure and "OverflowError: cannot convert float infinity" in job.failure.reason
    assert "died" not in job.failure.reason


@pytest.mark.slow
@pytest.mark.parametrize("named", ["data", "~/data"])
def test_kernels_get_the_data_folder_that_the_runner_sees(
    named: str, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    (book.root / "data").mkdir()
    (book.root / "data" / "manifest.json").write_text('{"files": {}}')
    monkeypatch.chdir(book.root)
    monkeypatch.setenv("HOME", str(book.root))
    monkeypatch.setenv("SYNTHBOOK_DATA", named)
    assert data_folder() == book.root / "data"
    book.write("01", "from synthbook.datasets import data_folder\nprint(data_folder())")
    assert jobs_of(book)["01"].status == "done"
    assert book.copy("01")["cells"][1].outputs[0].text == f"{book.root / 'data'}\n"


@pytest.mark.slow
def test_memory_includes_children_and_what_was_freed(book: Book) -> None:
    hold = "import subprocess, sys\nmine = bytearray(150 * 2**20)\n"
    child = "import time; x = bytearray(100 * 2**20); print(1, flush=True); time.sleep(2)"
    book.write("01", "x = bytearray(400 * 2**20)\ndel x")
    book.write("02", f"{hold}subprocess.run([sys.executable, '-c', {child!r}])")
    peaks = {name: job.peak_mib for name, job in jobs_of(book).items()}
    assert 400 < peaks["01"] < 550
    assert 250 < peaks["02"] < 400
    facts = book.copy("01")["metadata"]["synthbook"]
    assert facts["peak_mib"] == peaks["01"] and 0 < facts["minutes"] < 0.5 and facts["profile"] == "quick"


@pytest.mark.slow
def test_two_jobs_run_side_by_side(book: Book) -> None:
    wait = (
        "import pathlib, time\npathlib.Path('../{mine}').touch()\n"
        "while not pathlib.Path('../{other}').exists(): time.sleep(0.01)"
    )
    book.write("01", wait.format(mine="a", other="b"))
    book.write("02", wait.format(mine="b", other="a"))
    statuses = [job.status for job in jobs_of(book, RunConfig(n_jobs=2, cell_timeout=30)).values()]
    assert statuses == ["done", "done"]


@pytest.mark.slow
def test_one_job_runs_one_after_the_other(book: Book) -> None:
    checkout_lock = (
        "import pathlib, time\nlock = pathlib.Path('../lock')\n"
        "lock.touch(exist_ok=False)\ntime.sleep(0.3)\nlock.unlink()"
    )
    book.write("01", checkout_lock)
    book.write("02", checkout_lock)
    assert [job.status for job in jobs_of(book, RunConfig(n_jobs=1)).values()] == ["done", "done"]


@pytest.mark.slow
def test_what_makes_a_notebook_run_again(book: Book) -> None:
    count = "import pathlib\nwith open('../runs', 'a') as f: f.write('x')"
    source = book.write("01", count)

    def runs() -> int:
        return len((book.root / "runs").read_text())

    assert jobs_of(book)["01"].status == "done" and runs() == 1
    assert jobs_of(book)["01"].status == "unchanged" and runs() == 1
    book.write("01", count, words="# Other words")
    assert jobs_of(book)["01"].status == "unchanged" and runs() == 1
    copy = book.copy("01")
    assert copy["cells"][0].source == "# Other words" and copy["cells"][1].execution_count == 1
    assert jobs_of(book, RunConfig(force=True))["01"].status == "done" and runs() == 2
    book.write("01", count + "\nprint(1)")
    assert jobs_of(book)["01"].status == "done" and runs() == 3
    assert jobs_of(book, RunConfig(profile="full"))["01"].status == "done" and runs() == 4
    path = book.copies / source.name
    path.write_bytes(path.read_bytes()[:-200])  # cut off by someone else
    assert jobs_of(book, RunConfig(profile="full"))["01"].status == "done" and runs() == 5


@pytest.mark.slow
def test_a_failure_is_not_hidden_by_an_older_success(book: Book) -> None:
    book.write("01", "import pathlib\nassert not pathlib.Path('../broken').exists()")
    assert jobs_of(book)["01"].status == "done"
    (book.root / "broken").touch()
    assert jobs_of(book, RunConfig(force=True))["01"].status == "failed"
    assert jobs_of(book)["01"].status == "failed"
    (book.root / "broken").unlink()
    assert jobs_of(book)["01"].status == "done"
    assert not book.failed_copy_of(book.notebooks / "01.ipynb").exists()


PIXEL = (
    "from IPython.display import Image, display\nimport base64\ndisplay(Image(base64.b64decode({!r}), format='png'))"
)
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d4944415478da63fcffff3f030005fe02fea72d1d9f0000000049454e44ae426082"
    )
).decode()


@pytest.mark.slow
def test_update_writes_back_what_was_executed(book: Book) -> None:
    source = book.write("01", "x = 6 * 7", "x", PIXEL.format(PNG), export="docs/figures/x.png")
    job = jobs_of(book, RunConfig(update=True))["01"]
    assert job.status == "done", job.failure
    assert source.read_bytes() == book.copy_of(source).read_bytes()
    committed = nb.read(source)
    assert nb.is_fully_executed(committed) and committed["cells"][2]["outputs"][0]["data"]["text/plain"] == "42"
    assert re.search(r"<!-- measured -->0\.1 min, \d+ MiB<!-- /measured -->", committed["cells"][0]["source"])
    assert set(nb.run_metadata(committed)) == {"fingerprint", "profile", "minutes", "peak_mib", "claims"}
    figure = book.root / "docs/figures/x.png"
    assert figure.read_bytes() == base64.b64decode(PNG)
    assert list(read_provenance(figure).parents) == ["notebooks/01.ipynb"]
    assert jobs_of(book, RunConfig(update=True))["01"].status == "unchanged"
    assert not list(book.root.rglob("*.tmp"))


@pytest.mark.slow
def test_update_runs_what_is_committed_without_being_whole(book: Book) -> None:
    source = book.write("01", "1", "2")
    jobs_of(book, RunConfig(update=True))
    notebook = json.loads(source.read_text())
    notebook["cells"][2]["execution_count"] = 5
    source.write_text(json.dumps(notebook))
    assert jobs_of(book, RunConfig(update=True))["01"].status == "done"


@pytest.mark.slow
def test_update_gives_an_unchanged_notebook_its_measured_values_back(book: Book) -> None:
    code = ["with open('../runs', 'a') as f: f.write('x')", PIXEL.format(PNG)]
    source = book.write("01", *code, export="x.png")
    jobs_of(book, RunConfig(update=True))
    notebook = json.loads(source.read_text())
    notebook["cells"][0]["source"] = CARD.replace("A notebook", "Other words")
    source.write_text(json.dumps(notebook))
    (book.root / ".x.png.abc.tmp").touch()
    assert jobs_of(book, RunConfig(update=True))["01"].status == "unchanged"
    card = nb.read(source)["cells"][0]["source"]
    assert "Other words" in card and re.search(r"<!-- measured -->0\.1 min, \d+ MiB<!-- /measured -->", card)
    assert source.read_text() == nb.dumps(nb.read(source)) and (book.root / "runs").read_text() == "x"
    parents = read_provenance(book.root / "x.png").parents
    assert parents == {"notebooks/01.ipynb": sha256_file(source)}
    assert not list(book.root.rglob("*.tmp"))


@pytest.mark.slow
def test_update_leaves_a_failed_notebook_and_one_without_its_picture(book: Book) -> None:
    paths = [
        book.write("01", "1 / 0"),
        book.write("02", "1", export="x.png"),
        book.write("03", PIXEL, export="../x.png"),
    ]
    book.write("03", PIXEL.format(PNG), export="../x.png")
    before = [path.read_bytes() for path in paths]
    jobs = jobs_of(book, RunConfig(update=True))
    assert [job.status for job in jobs.values()] == ["failed"] * 3
    assert "image/png" in str(jobs["02"].failure) and "inside the project" in str(jobs["03"].failure)
    assert [path.read_bytes() for path in paths] == before and not (book.root.parent / "x.png").exists()


@pytest.mark.slow
def test_update_does_not_overwrite_an_author_who_types_meanwhile(book: Book) -> None:
    source = book.write("01", "with open('01.ipynb', 'a') as f: f.write(' ')")
    before = source.read_bytes()
    job = jobs_of(book, RunConfig(update=True))["01"]
    assert job.status == "failed" and "edited while it ran" in str(job.failure)
    assert source.read_bytes() == before + b" "


@pytest.mark.slow
def test_claims_land_in_the_metadata(book: Book) -> None:
    book.write("01", CLAIM.format(id="C7.2-1", part="nope", m=1))
    from synthbook.course.claims import load_claims

    part = load_claims()["C7.2-1"].parts[0].id
    book.write("02", CLAIM.format(id="C7.2-1", part=part, m=0.5))
    jobs = jobs_of(book)
    assert jobs["01"].status == "failed" and "InvalidArgument" in jobs["01"].failure.traceback  # type: ignore[union-attr]
    (row,) = book.copy("02")["metadata"]["synthbook"]["claims"]
    assert (row["id"], row["part"], row["measured"], row["holds"]) == ("C7.2-1", part, 0.5, True)


def test_a_second_runner_is_refused_and_leftovers_are_swept(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    book.copies.mkdir(parents=True)
    left = [book.notebooks / ".01.ipynb.abc.tmp", book.copies / ".01.ipynb.abc.tmp", book.build / ".claims.json.x.tmp"]
    for file in left:
        file.touch()
    (book.build / ".site.abc.tmp" / "source").mkdir(parents=True)
    mine = book.notebooks / ".mine.tmp"
    mine.touch()
    monkeypatch.setattr("synthbook.course.site.build", lambda root: root)
    with (book.build / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for work in (lambda: run_course(book, [], RunConfig(), callback=print), lambda: build_site(book)):
            with pytest.raises(SynthbookError, match="another run is going on"):
                work()
        assert all(file.exists() for file in left)
    assert build_site(book) == book.root
    assert mine.exists() and sorted(book.build.iterdir()) == [book.build / ".lock", book.copies]
    assert not any(file.exists() for file in left)


@pytest.mark.slow
def test_the_lock_is_held_until_the_board_is_written(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        with pytest.raises(SynthbookError, match="another run is going on"):
            build_site(book)
        raise DataError("the second was refused")

    book.write("01", "1")
    monkeypatch.setattr("synthbook.course.site.build", refused)
    monkeypatch.setattr("synthbook.course.runner._write_board", refused)
    outcome = run_course(book, book.sources(), RunConfig(), callback=unwatched)
    assert [job.status for job in outcome.jobs] == ["done"] and outcome.exit_code == 1
    assert outcome.errors == ["the second was refused"] * 2


def unwatched(job: NotebookRun) -> None:
    pass


def test_a_site_that_cannot_be_built_leaves_the_one_before_it(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_into(folder: Path, root: Path) -> None:
        (folder / "_build" / "html").mkdir(parents=True)
        (folder / "_build" / "html" / "index.html").write_text((root / "docs" / "conf.py").read_text())
        assert not broken

    broken = False
    (book.root / "docs").mkdir()
    (book.root / "docs" / "conf.py").write_text("first")
    monkeypatch.setattr("synthbook.course.site._build_into", build_into)
    page = build_site(book)
    (book.root / "docs" / "conf.py").write_text("second")
    broken = True
    with pytest.raises(AssertionError):
        build_site(book)
    assert page.read_text() == "first"
    broken = False
    assert build_site(book) == page and page.read_text() == "second"
    assert not list(book.build.glob("*.tmp"))


def test_where_files_cannot_be_locked_the_way_out_is_named(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(SynthbookError, match="on Windows use WSL"):
        build_site(book)


STAY = """import ctypes, os, pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
pathlib.Path('../pids.part').write_text(f'{os.getpid()} {child.pid}')
os.rename('../pids.part', '../pids')
ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock: no thread of the kernel can run"""


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_runner_leaves_nothing_behind(book: Book, sign: signal.Signals, code: int, tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    book.write("01_quick", "1")
    book.write("02_stays", STAY)
    before = {path.name: path.read_bytes() for path in book.sources()}
    runner = book.start("--jobs", "1", TMPDIR=str(temporary))
    until((book.root / "pids").exists)
    pids = [int(pid) for pid in (book.root / "pids").read_text().split()]
    assert all(alive(pid) for pid in pids)
    runner.send_signal(sign)
    said = "".join(runner.communicate(timeout=120))
    assert runner.returncode == code, said
    assert ("2 notebooks: 1 done, 1 interrupted" in said) == (sign == signal.SIGINT)
    until(lambda: not any(alive(pid) for pid in pids), seconds=30)
    until(lambda: not list(temporary.iterdir()), seconds=30)
    assert {path.name: path.read_bytes() for path in book.notebooks.iterdir()} == before
    assert [path.name for path in book.copies.iterdir()] == ["01_quick.ipynb"]
    assert nb.is_fully_executed(book.copy("01_quick"))


@pytest.mark.slow
def test_an_unchanged_book_is_done_at_once(book: Book) -> None:
    book.write("01", "1")
    jobs_of(book)
    code = "import sys; from synthbook.cli.main import main; main(['course', 'run', '--no-site']);"
    code += "print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=book.root, capture_output=True, text=True, check=True)
    assert "1 unchanged" in done.stdout
    for heavy in ("nbclient", "nbformat", "jupyter_client", "torch", "sphinx", "joblib"):
        assert f"'{heavy}'" not in done.stdout
