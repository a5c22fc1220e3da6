"""Irreversibly restrict this process to pure computation: rlimits, Landlock and seccomp, without any privilege.

    rlimits    how much memory, CPU time, open files               setrlimit(2)
    Landlock   which files: the standard library may be read       Linux 5.13, landlock(7)
    seccomp    which system calls: about sixty of four hundred     seccomp(2), a list of what is allowed

The three are needed together: limits alone stop neither reading nor sending, Landlock leaves UDP and signals, seccomp
sees no file names. A child calls `confine` before it is given anything to run. It uses the standard library only.

Not promised: that the kernel has no hole; that nothing leaks by timing; that names and sizes of files (not contents)
stay unseen, which Landlock does not hide; anything of this on macOS, Windows or other processors: "limits-only" there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator

# ── system calls by number: x86-64, and arm64, which has no old ones ─────────────────────────────────────────────────

_X86_64 = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "ioctl": 16, "pread64": 17, "readv": 19, "writev": 20, "access": 21, "select": 23,
    "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "nanosleep": 35, "getpid": 39, "exit": 60,
    "uname": 63, "fcntl": 72, "getcwd": 79, "readlink": 89, "gettimeofday": 96, "getrlimit": 97,
    "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
    "getppid": 110, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
    "getdents64": 217, "set_tid_address": 218, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "openat": 257, "newfstatat": 262, "readlinkat": 267,
    "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "prlimit64": 302, "getrandom": 318,
    "statx": 332, "rseq": 334, "clone3": 435, "faccessat2": 439,
}  # fmt: skip
_ARM64 = {
    "getcwd": 17, "dup": 23, "fcntl": 25, "ioctl": 29, "faccessat": 48, "openat": 56, "close": 57,
    "getdents64": 61, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67,
    "pselect6": 72, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94,
    "set_tid_address": 96, "futex": 98, "set_robust_list": 99, "nanosleep": 101, "clock_gettime": 113,
    "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124,
    "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
    "times": 153, "uname": 160, "getrlimit": 163, "getrusage": 165, "gettimeofday": 169, "getpid": 172,
    "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179,
    "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "prlimit64": 261,
    "getrandom": 278, "statx": 291, "rseq": 293, "clone3": 435, "faccessat2": 439,
}  # fmt: skip
ARCHITECTURES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _ARM64)}  # AUDIT_ARCH_..., linux/audit.h
ARGUMENT_CHECKED = {"fcntl", "ioctl", "prlimit64", "clone3"}  # not allowed as they are: see `seccomp_program`
F_COMMANDS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC; others send signals

# ── seccomp: a small program that the kernel runs at every system call ───────────────────────────────────────────────

LOAD, EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOTTY, ENOSYS = 1, 25, 38
NR, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k


def seccomp_program(arch: int, calls: dict[str, int]) -> list[Instruction]:
    """The filter: another architecture kills, what is listed is allowed, all else fails with EPERM."""
    program: list[Instruction] = [(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, arch), (_RETURN, 0, 0, KILL), (LOAD, 0, 0, NR)]
    for name, number in calls.items():
        if name not in ARGUMENT_CHECKED:
            program += [(EQUAL, 0, 1, number), (_RETURN, 0, 0, ALLOW)]
    program += [(EQUAL, 0, 1, calls["clone3"]), (_RETURN, 0, 0, ERRNO | ENOSYS)]  # libc then tries clone
    program += [(EQUAL, 0, 1, calls["ioctl"]), (_RETURN, 0, 0, ERRNO | ENOTTY)]  # Python then uses fcntl
    # prlimit64 may look (its third argument, new limits, is null) but not change
    low, high = ARGUMENTS + 16, ARGUMENTS + 20
    program += [(EQUAL, 0, 6, calls["prlimit64"]), (LOAD, 0, 0, low), (EQUAL, 0, 3, 0), (LOAD, 0, 0, high)]
    program += [(EQUAL, 0, 1, 0), (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, ERRNO | EPERM)]
    n = len(F_COMMANDS)
    program += [(EQUAL, 0, n + 1, calls["fcntl"]), (LOAD, 0, 0, ARGUMENTS + 8)]
    program += [(EQUAL, n - k, 0, command) for k, command in enumerate(F_COMMANDS)]
    return [*program, (_RETURN, 0, 0, ERRNO | EPERM), (_RETURN, 0, 0, ALLOW)]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _seccomp(libc: ctypes.CDLL, arch: int, calls: dict[str, int]) -> None:
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in seccomp_program(arch, calls))
    kept = ctypes.create_string_buffer(packed, len(packed))
    program = _Program(len(packed) // 8, ctypes.cast(kept, ctypes.c_void_p))
    _checked(libc.prctl(22, 2, ctypes.byref(program), 0, 0), "seccomp")  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


# ── Landlock: what is not named cannot be opened ─────────────────────────────────────────────────────────────────────

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on both
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS = (0, 13, 14, 15, 15, 16)  # how many rights on files each version of Landlock knows


def _landlock(libc: ctypes.CDLL, readable: Iterator[tuple[str, int]]) -> None:
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    _checked(version, "landlock")
    files = (1 << _RIGHTS[min(version, len(_RIGHTS) - 1)]) - 1
    tcp, scopes = 3 if version >= 4 else 0, 3 if version >= 6 else 0  # bind and connect; abstract sockets, signals
    attributes = struct.pack("QQQ", files, tcp, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    _checked(ruleset, "landlock")
    for path, rights in readable:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _checked(libc.syscall(_ADD, ruleset, 1, struct.pack("=Qi", rights, fd), 0), "landlock")
            os.close(fd)
    _checked(libc.syscall(_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)


def _readable() -> Iterator[tuple[str, int]]:
    """The standard library without the packages installed in it, and the libraries that it loads."""
    library = os.path.dirname(os.__file__)
    yield library, _READ_DIR
    for name in os.listdir(library):
        path = os.path.join(library, name)
        if name not in ("site-packages", "dist-packages"):
            yield path, _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE
    for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"):
        yield folder, _READ_FILE | _READ_DIR
    own = os.path.join(sys.base_prefix, "lib")
    if os.path.isdir(own) and not own.startswith("/usr/lib"):
        for name in os.listdir(own):
            if name.startswith("lib") and ".so" in name:
                yield os.path.join(own, name), _READ_FILE


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────


def set_rlimits(seconds: float, memory_mib: int) -> None:
    """Limits of this process: address space, CPU time, open files; no file grows, no core is dumped."""
    import resource

    wanted = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 32)]
    wanted += [(resource.RLIMIT_CPU, int(seconds) + 2)]
    if sys.platform.startswith("linux"):  # macOS knows the limit and ignores it
        wanted += [(resource.RLIMIT_AS, memory_mib << 20)]
    for which, most in wanted:
        with contextlib.suppress(ValueError, OSError):  # a harder limit is in force already
            resource.setrlimit(which, (most, most))


def confine(seconds: float, memory_mib: int) -> str:
    """Give up everything but computing; the level of isolation that was reached, "os" or "limits-only"."""
    set_rlimits(seconds, memory_mib)
    machine = ARCHITECTURES.get(os.uname().machine) if sys.platform.startswith("linux") else None
    if machine is None or struct.calcsize("P") != 8:
        return "limits-only"
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _checked(libc.prctl(1, 9, 0, 0, 0), "prctl")  # PR_SET_PDEATHSIG: killed when its parent dies
        _checked(libc.prctl(38, 1, 0, 0, 0), "prctl")  # PR_SET_NO_NEW_PRIVS: no privilege is ever gained again
        _landlock(libc, _readable())
        _seccomp(libc, *machine)
    except OSError:  # an older kernel, or a container that forbids it
        return "limits-only"
    return "os"


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
