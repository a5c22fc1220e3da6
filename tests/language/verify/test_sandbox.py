"""Nothing gets out of the sandbox, nothing right is refused, and each of its three walls is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import lazy_loader
import pytest

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.language.sandbox import confine, pool
from synthbook.language.sandbox.pool import CodeTask, Limits, Sandbox, WeakIsolation
from tests.conftest import require
from tests.language.verify import attacks
from tests.language.verify.attacks import BURDENS, FORGERIES, REACHES, Arena, left, violated

HERE, VERIFY = Path(__file__).parent, Path(pool.__file__).parent
ATTACKS = [("reaches", name) for name in REACHES] + [("burdens", name) for name in BURDENS]
ATTACKS += [("forgeries", name) for name in FORGERIES]
KEEP_OUT = "this machine offers no Landlock or seccomp"


def confines() -> bool:
    with Sandbox(jobs=1, allow_weak=True) as box:
        return box.run(CodeTask("1")).isolation == "os"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    require(confines(), KEEP_OUT)
    with Sandbox(Limits(attacks.SECONDS), jobs=2) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with Arena() as arena:
        yield arena


# ── attacks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_attacks_are_many_and_are_programs(arena: Arena) -> None:
    assert len(ATTACKS) == len({name for _, name in ATTACKS}) > 100
    for body in (*REACHES.values(), *BURDENS.values(), *FORGERIES.values()):
        if "\0" not in body:
            compile(arena.code(body), "attack", "exec")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), ATTACKS, ids=[name for _, name in ATTACKS])
def test_nothing_is_reached(kind: str, name: str, box: Sandbox, arena: Arena) -> None:
    found, outcome = violated(box, arena, kind, name)
    assert found == [] and outcome.isolation == "os"


@pytest.mark.slow
def test_reasons_tell_what_happened(box: Sandbox, arena: Arena) -> None:
    def reason(body: str) -> str:
        (value,) = box.run(CodeTask(arena.code(body), "f", ((),))).values
        return str(value.reason)

    told = {name: reason(BURDENS[name]) for name in ("loops", "takes memory", "floods the pipe", "crashes", "exits")}
    assert told == {
        "loops": "timeout",
        "takes memory": "memory",
        "floods the pipe": "output_limit",
        "crashes": "error",
        "exits": "error",
    }
    assert reason(REACHES["reads a secret"]) == reason(REACHES["forks"]) == reason(REACHES["sends by UDP"]) == "denied"


@pytest.mark.slow
def test_nothing_is_left_when_all_is_over(arena: Arena) -> None:
    require(confines(), KEEP_OUT)
    before = set(left())
    with Sandbox(Limits(0.3), jobs=2, spare=4) as box:
        list(
            box.map(CodeTask(arena.code(BURDENS[name]), "f", ((),)) for name in ("swallows signals", "sleeps", "loops"))
        )
    assert set(left()) - before == set()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="synthbook-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.slow
def test_another_user_is_kept_in_as_well(public_folder: Path) -> None:
    """As nobody, with the standard library of this Python where nobody can read it."""
    require(os.getuid() == 0 and confines(), "only root can become another user")
    library, nobody = Path(os.__file__).parent, 65534
    own = public_folder / "lib" / library.name
    shutil.copytree(library, own, ignore=shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib"))
    (public_folder / "bin").mkdir()
    python = shutil.copy(os.path.realpath(sys.executable), public_folder / "bin" / "python3.11")
    for shared in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        shutil.copy(shared, public_folder / "lib")
    code = public_folder / "code"
    for part in (
        "synthbook/__init__.py",
        "synthbook/__init__.pyi",
        "synthbook/core/__init__.py",
        "synthbook/core/__init__.pyi",
        "synthbook/core/errors.py",
    ):
        (code / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE.parents[2] / part, code / part)
    shutil.copytree(Path(lazy_loader.__file__).parent, code / "lazy_loader")
    shutil.copytree(HERE.parents[2] / "synthbook" / "language", code / "synthbook" / "language")
    shutil.copy(HERE / "attacks.py", code / "attacks.py")
    scratch = public_folder / "tmp"
    scratch.mkdir()
    scratch.chmod(0o777)
    environment = {"PYTHONPATH": str(code), "TMPDIR": str(scratch), "LD_LIBRARY_PATH": str(public_folder / "lib")}
    ran = subprocess.run(
        [python, "attacks.py"],
        env=environment | {"PYTHONHOME": str(public_folder), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=code,
        capture_output=True,
        text=True,
        timeout=300,
        user=nobody,
        group=nobody,
        extra_groups=[],
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["uid"] == nobody and report["isolation"] == ["os"] and report["attacks"] == len(ATTACKS)
    assert report["violations"] == {} and report["left"] == []


# ── each wall is needed: without it, attacks that do no lasting harm succeed ─────────────────────────────────────────

FILES = (
    "reads a secret",
    "reads with a raw descriptor",
    "lists a folder",
    "writes outside",
    "writes in its own folder",
)
FILES += ("reads the password file", "appends to a secret", "reads its parent's environment")
CALLS = ("forks", "calls fork by number", "starts a thread", "makes a pair of sockets", "sends by UDP", "sets a timer")
CALLS += ("changes the rights of a secret", "makes shared memory")
WITHOUT = {
    "Landlock": ("_landlock(libc, _readable())", FILES),
    "seccomp": ("_seccomp(libc, *machine)", CALLS),
    "limits": ("set_rlimits(seconds, memory_mib)", ("takes half a gigabyte",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("wall", WITHOUT)
def test_each_wall_is_needed(wall: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(confines(), KEEP_OUT)
    line, names = WITHOUT[wall]
    source = (VERIFY / "confine.py").read_text()
    assert source.count(f"    {line}\n") == 1
    (tmp_path / "confine.py").write_text(source.replace(f"    {line}\n", "    pass\n"))
    shutil.copy(VERIFY / "worker.py", tmp_path)
    monkeypatch.setattr(pool, "CHILD", tmp_path / "worker.py")
    monkeypatch.setitem(attacks.REACHES, "takes half a gigabyte", "x = bytearray(512 << 20); return 'reached'")
    with Sandbox(Limits(5.0), jobs=1) as box:
        for name in names:
            with Arena() as arena:
                found, outcome = violated(box, arena, "reaches", name)
                assert found, (name, outcome)


# ── the filter, run here by hand on all calls there are ──────────────────────────────────────────────────────────────


def decided(program: list[confine.Instruction], arch: int, nr: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    """What a filter says of a call: an interpreter of its four instructions."""
    words = {confine.NR: nr, confine.ARCH: arch}
    for i, value in enumerate(arguments):
        words[confine.ARGUMENTS + 8 * i] = value & 0xFFFFFFFF
        words[confine.ARGUMENTS + 8 * i + 4] = value >> 32
    k, accumulator = 0, 0
    while True:
        code, yes, no, operand = program[k]
        k += 1
        if code == confine.LOAD:
            accumulator = words[operand]
        elif code == confine.EQUAL:
            k += yes if accumulator == operand else no
        else:
            return operand


@pytest.mark.parametrize("machine", confine.ARCHITECTURES)
def test_the_filter_allows_what_is_listed_and_nothing_else(machine: str) -> None:
    arch, calls = confine.ARCHITECTURES[machine]
    program = confine.seccomp_program(arch, calls)
    allowed = {nr for nr in range(1_000) if decided(program, arch, nr, (9, 9, 9, 9, 9, 9)) == confine.ALLOW}
    assert allowed == {calls[name] for name in calls.keys() - confine.ARGUMENT_CHECKED}
    assert decided(program, arch ^ 1, 0) == confine.KILL
    assert decided(program, arch, 0x40000000 + calls["read"]) == confine.ERRNO | confine.EPERM
    assert decided(program, arch, calls["clone3"]) == confine.ERRNO | confine.ENOSYS
    assert decided(program, arch, calls["ioctl"], (0, 0x5412, 0, 0, 0, 0)) == confine.ERRNO | confine.ENOTTY
    looks, changes = (0, 9, 0, 1, 0, 0), [(0, 9, new, 0, 0, 0) for new in (1, 2, 3, 1030, 1 << 32, (1 << 32) + 1)]
    assert decided(program, arch, calls["prlimit64"], looks) == confine.ALLOW
    assert {decided(program, arch, calls["prlimit64"], call) for call in changes} == {confine.ERRNO | confine.EPERM}
    fine = {c for c in range(2_000) if decided(program, arch, calls["fcntl"], (0, c, 0, 0, 0, 0)) == confine.ALLOW}
    assert fine == set(confine.F_COMMANDS)
    assert len(program) < 4_096


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")],
)
def test_numbers_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    path = Path("/usr/include", header)
    if not path.exists():
        pytest.skip(f"{path} comes with the C library's headers, which are not here")
    text = path.read_text()
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    wide = {"newfstatat": "fstatat"}  # as the generic table calls it
    for name, number in confine.ARCHITECTURES[machine][1].items():
        assert int(numbers.get(name) or numbers[wide.get(name, name)]) == number, name


# ── what it is for ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_values_come_back_with_their_types(box: Sandbox) -> None:
    values = [None, True, 0, -3, 10**40, 0.1, -0.0, "é\n\ud800", [1, [2.5]], (1, ("a",)), {1, 2}, frozenset({"x"})]
    values += [{"a": 1, 2: [3]}, {"$": "tuple", "v": [1]}, float("inf"), [], {}]
    (back,) = box.run(CodeTask("def f(*x): return list(x)", "f", (tuple(values),))).values
    assert [type(value) for value in back] == [type(value) for value in values] and back == values
    (nothing,) = box.run(CodeTask("float('nan')")).values
    assert nothing != nothing


def test_a_set_has_the_same_order_every_time(box: Sandbox) -> None:
    code = "def f(): return list({'a', 'b', 'c', 'd', 'e', 'f', 'g'})"
    outcomes = [box.run(CodeTask(code, "f", ((),))).values[0] for _ in range(4)]
    assert all(one == outcomes[0] for one in outcomes)


def test_no_record_spoils_the_next(box: Sandbox) -> None:
    spoil = "import builtins, json\nbuiltins.len = json.dumps = None\ndef f(): return 1"
    box.run(CodeTask(spoil, "f", ((),)))
    assert [outcome.values for outcome in box.map([CodeTask(spoil, "f", ((),)), CodeTask("len('abc')")])][1] == (3,)


@pytest.mark.slow
def test_many_run_in_order_and_are_read_as_they_are_needed(box: Sandbox) -> None:
    read = []

    def tasks() -> Iterator[CodeTask]:
        for k in range(100):
            read.append(k)
            yield CodeTask(f"{k} * 2")

    outcomes = box.map(tasks())
    assert next(outcomes).values == (0,) and len(read) < 20
    assert [outcome.values[0] for outcome in outcomes] == [2 * k for k in range(1, 100)]


def test_memory_and_time_are_told(box: Sandbox) -> None:
    outcome = box.run(CodeTask("def f():\n    x = bytearray(60 << 20)\n    return len(x)", "f", ((),)))
    assert outcome.peak_mib is not None and 60 < outcome.peak_mib < 120
    slept = box.run(CodeTask("__import__('time').sleep(0.3)"))
    assert 0.3 <= slept.seconds < 0.9


@pytest.mark.slow
def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    require(confines(), KEEP_OUT)
    code = (
        "from synthbook.language.sandbox.pool import CodeTask, Limits, Sandbox\n"
        "with Sandbox(Limits(60), jobs=1) as box:\n"
        "    print('ready', flush=True)\n"
        "    box.run(CodeTask('__import__(\"time\").sleep(600)'))\n"
    )
    before = set(left())
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        cwd=HERE.parents[2],
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
    time.sleep(0.5)
    assert set(left()) - before
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.time() + 5
    while (still := set(left()) - before) and time.time() < deadline:
        time.sleep(0.05)
    assert not still


def test_less_than_os_is_refused_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (VERIFY / "confine.py").read_text()
    assert source.count('sys.platform.startswith("linux") else None') == 1
    (tmp_path / "confine.py").write_text(
        source.replace('sys.platform.startswith("linux") else None', "False else None")
    )
    shutil.copy(VERIFY / "worker.py", tmp_path)
    monkeypatch.setattr(pool, "CHILD", tmp_path / "worker.py")
    touched = tmp_path / "touched"
    task = CodeTask(f"open({str(touched)!r}, 'w').close()")
    with Sandbox(jobs=1) as box, pytest.raises(WeakIsolation, match="allow_weak=True"):
        box.run(task)
    assert not touched.exists()
    with Sandbox(jobs=1, allow_weak=True) as box:
        outcome = box.run(task)
    assert outcome.isolation == "limits-only" and touched.exists()


def test_what_a_stranger_made_can_be_removed(tmp_path: Path) -> None:
    """Also by a user whose rights were taken away, who is not root."""
    inner, outside = tmp_path / "own" / "a" / "b", tmp_path / "outside"
    inner.mkdir(parents=True)
    outside.mkdir(mode=0o755)
    (inner / "file").write_text("x")
    (inner.parent / "link").symlink_to(outside)
    inner.chmod(0)
    inner.parent.chmod(0)
    (tmp_path / "own").chmod(0)
    pool.remove(tmp_path / "own")
    assert not (tmp_path / "own").exists() and outside.stat().st_mode & 0o777 == 0o755


def test_arguments_that_cannot_be_sent_are_refused(box: Sandbox) -> None:
    for argument in (b"bytes", object(), range(3), [1j]):
        with pytest.raises(InvalidArgument, match="None, bool, int"):
            box.run(CodeTask("def f(x): return x", "f", ((argument,),)))


def test_bad_limits_and_an_unopened_sandbox_are_refused() -> None:
    for limits in ({"timeout": 0}, {"timeout": -1}, {"memory_mib": 8}, {"output_kib": 0}):
        with pytest.raises(InvalidArgument):
            Limits(**limits)
    with pytest.raises(SynthbookError, match="with Sandbox"):
        Sandbox().run(CodeTask("1"))


def test_a_child_that_cannot_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHILD", tmp_path / "nothing.py")
    with Sandbox(jobs=1) as box, pytest.raises(SynthbookError, match="did not start"):
        box.run(CodeTask("1"))
