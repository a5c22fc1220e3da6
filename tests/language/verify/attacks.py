"""Programs that try to get out, to stay, to take, or to be judged right without being right.

Each defines `f()`. It returns "reached" where it got what it was after, which is a violation; so is any of the traces
that an `Arena` finds outside, a verdict of 42 for a program of `FORGERIES`, and an end later than the limit and 1 s.
Standard library only: another user runs this file, too (`python attacks.py`, which prints what was violated as JSON).
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

SECONDS = 1.0
SYSCALL = """
    import ctypes, platform
    libc = ctypes.CDLL(None, use_errno=True)
    x86 = platform.machine() == "x86_64"
"""

# What is after something: "reached" is a violation. Names after @ are put in by the arena.
REACHES = {
    # ── files ──
    "reads a secret": "return 'reached' if open(@secret).read() else 0",
    "reads a secret by a relative path": "import os; return 'reached' if open(os.path.relpath(@secret)).read() else 0",
    "reads a secret through a link": "import os; os.symlink(@secret, 'link'); return 'reached' if open('link').read() else 0",
    "hard-links a secret": "import os; os.link(@secret, 'link'); return 'reached' if open('link').read() else 0",
    "reads with a raw descriptor": "import os; return 'reached' if os.read(os.open(@secret, os.O_RDONLY), 9) else 0",
    "maps a secret": "import mmap; return 'reached' if mmap.mmap(open(@secret, 'r+b').fileno(), 0)[:] else 0",
    "lists a folder": "import os; return 'reached' if os.listdir(@folder) else 0",
    "reads the password file": "return 'reached' if open('/etc/passwd').read() else 0",
    "reads installed packages": "import glob, sys; return 'reached' if open(@package).read() else 0",
    "writes outside": "open(@target, 'w').write('x'); return 'reached'",
    "writes in its own folder": "open('file', 'w').write('x'); return 'reached'",
    "appends to a secret": "open(@secret, 'a').write('x'); return 'reached'",
    "truncates a secret": "import os; os.truncate(@secret, 0); return 'reached'",
    "renames a secret": "import os; os.rename(@secret, @target); return 'reached'",
    "deletes a secret": "import os; os.unlink(@secret); return 'reached'",
    "takes rights away": "import os; os.chmod('.', 0); return 'reached'",
    "changes the rights of a secret": "import os; os.chmod(@secret, 0o777); return 'reached'",
    "changes the times of a secret": "import os; os.utime(@secret); return 'reached'",
    "makes a folder": "import os; os.mkdir(@target); return 'reached'",
    "makes a pipe on disk": "import os; os.mkfifo(@target); return 'reached'",
    "fills the disk": "g = open('big', 'wb'); g.write(b'x' * (64 << 20)); return 'reached'",
    "makes many files": "[open(str(i), 'w').close() for i in range(100_000)]; return 'reached'",
    "makes a file in memory": "import os; os.write(os.memfd_create('x'), b'x'); return 'reached'",
    "opens a device": "open('/dev/kmsg').read(1); return 'reached'",
    # ── other processes ──
    "forks": "import os; pid = os.fork(); pid or os._exit(0); return 'reached'",
    "forks without end": "import os\n    while True: os.fork()",
    "becomes a daemon": "import os\n    if not os.fork(): os.setsid(); os.fork() or __import__('time').sleep(60)\n    return 'reached'",
    "leaves its session": "import os; os.setpgid(0, 0); return 'reached'",
    "starts a program": "import subprocess; return 'reached' if subprocess.run(['/bin/true']).returncode == 0 else 0",
    "starts a shell": "import os; return 'reached' if os.system('true') == 0 else 0",
    "starts with posix_spawn": "import os; os.posix_spawn('/bin/true', ['true'], {}); return 'reached'",
    "becomes another program": "import os; os.execv('/bin/sleep', ['sleep', '60'])",
    "starts a thread": "import threading; t = threading.Thread(target=print); t.start(); return 'reached'",
    "starts threads without end": "import threading, time\n    while True: threading.Thread(target=time.sleep, args=(60,)).start()",
    "uses multiprocessing": "import multiprocessing as m; p = m.Pool(2); return 'reached'",
    "kills its parent": "import os, signal; os.kill(@parent, signal.SIGUSR1); return 'reached'",
    "kills another": "import os, signal; os.kill(@victim, signal.SIGKILL); return 'reached'",
    "kills its group": "import os, signal; os.killpg(os.getppid(), signal.SIGUSR1); return 'reached'",
    "kills everybody": "import os, signal; os.kill(-1, signal.SIGUSR1); return 'reached'",
    "signals through a descriptor": "import fcntl, os, struct; fcntl.fcntl(0, 8, @parent); return 'reached'",
    "traces its parent": SYSCALL + "    return 'reached' if libc.ptrace(16, @parent, 0, 0) == 0 else 0",
    "reads its parent's memory": SYSCALL + """
    mine = ctypes.create_string_buffer(8)
    class Part(ctypes.Structure): _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))
    to, of = Part(ctypes.addressof(mine), 8), Part(@address, 8)
    return 'reached' if libc.process_vm_readv(@parent, ctypes.byref(to), 1, ctypes.byref(of), 1, 0) == 8 else 0""",
    "opens its parent's memory": "return 'reached' if open('/proc/%d/mem' % @parent, 'rb') else 0",
    "reads its parent's environment": "return 'reached' if open('/proc/%d/environ' % @parent, 'rb').read() else 0",
    "finds the parent's environment in its own": "import os; return 'reached' if 'SECRET_OF_PARENT' in os.environ else 0",
    "finds open descriptors": "import os\n    for fd in range(4, 256):\n        try: os.fstat(fd)\n        except OSError: continue\n        if fd != @pipe and __import__('stat').S_ISREG(os.fstat(fd).st_mode): return 'reached'",
    # ── the network ──
    "calls by TCP": "import socket; socket.create_connection(('127.0.0.1', @tcp)).send(b'x'); return 'reached'",
    "sends by UDP": "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', @udp)); return 'reached'",
    "calls an abstract socket": "import socket; s = socket.socket(1, 2); s.sendto(b'x', @abstract); return 'reached'",
    "listens": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); return 'reached'",
    "opens a raw socket": "import socket; socket.socket(2, 3, 1); return 'reached'",
    "opens a netlink socket": "import socket; socket.socket(16, 3, 0); return 'reached'",
    "makes a pair of sockets": "import socket; socket.socketpair(); return 'reached'",
    # ── the kernel ──
    "calls fork by number": SYSCALL + "    pid = libc.syscall(57 if x86 else 220, 17, 0, 0, 0, 0); pid or libc._exit(0); return 'reached' if pid > 0 else 0",
    "calls clone3 by number": SYSCALL + "    a = (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17); pid = libc.syscall(435, a, 64); pid or libc._exit(0); return 'reached' if pid > 0 else 0",
    "calls socket by number": SYSCALL + "    return 'reached' if libc.syscall(41 if x86 else 198, 2, 1, 0) >= 0 else 0",
    "calls the other table": SYSCALL + "    return 'reached' if x86 and libc.syscall(0x40000000 + 41, 2, 1, 0) >= 0 else 0",
    "calls in the 32-bit way": SYSCALL + """
    if not x86: return 0
    import mmap
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return 'reached' if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0 else 0""",
    "sets up io_uring": SYSCALL + "    return 'reached' if libc.syscall(425, 8, (ctypes.c_char * 120)()) >= 0 else 0",
    "makes a user namespace": SYSCALL + "    return 'reached' if libc.unshare(0x10000000) == 0 else 0",
    "mounts": SYSCALL + "    return 'reached' if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 else 0",
    "changes its root": "import os; os.chroot('.'); return 'reached'",
    "becomes another user": "import os; os.setuid(os.getuid()); return 'reached'",
    "raises its limits": "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 64)); return 'reached'",
    "raises limits by prlimit": "import os, resource as r; r.prlimit(0, r.RLIMIT_AS, (-1, -1)); return 'reached'",
    "raises its parent's limits": "import os, resource as r; r.prlimit(@parent, r.RLIMIT_CORE, (0, 0)); return 'reached'",
    "asks for privileges by prctl": SYSCALL + "    return 'reached' if libc.prctl(1, 0, 0, 0, 0) == 0 else 0",
    "loads a BPF program": SYSCALL + "    return 'reached' if libc.syscall(321 if x86 else 280, 0, 0, 0) >= 0 else 0",
    "takes a key ring": SYSCALL + "    return 'reached' if libc.syscall(250 if x86 else 219, 0, -3, 1) >= 0 else 0",
    "makes shared memory": SYSCALL + "    return 'reached' if libc.shmget(1234, 4096, 0o1666) >= 0 else 0",
    "sets a timer": "import signal; signal.setitimer(signal.ITIMER_REAL, 60); return 'reached'",
    "changes its priority": "import os; os.nice(5); return 'reached'",
}  # fmt: skip

# What only costs: it must be over in time, and leave nothing.
BURDENS = {
    "loops": "while True: pass",
    "loops and catches everything": "while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "swallows signals": "import signal\n    for s in range(1, 65):\n        try: signal.signal(s, signal.SIG_IGN)\n        except Exception: pass\n    while True: pass",
    "sleeps": "import time; time.sleep(3600)",
    "floods stdout": "while True: print('x' * 10_000)",
    "floods stderr": "import sys\n    while True: sys.stderr.write('x' * 10_000)",
    "floods the pipe": "import os\n    while True: os.write(@pipe, b'x' * 65536)",
    "fills the pipe without a line's end": "import os\n    while True: os.write(@pipe, b' ')",
    "takes memory": "return len(bytearray(10 << 30))",
    "takes memory bit by bit": "x = []\n    while True: x.append(bytearray(1 << 20))",
    "takes memory and catches": "x = []\n    while True:\n        try: x.append(bytearray(1 << 16))\n        except MemoryError: pass",
    "computes a huge integer": "return 10 ** 10 ** 10",
    "returns a huge integer": "return 1 << 10_000_000",
    "backtracks for ever": "import re; return re.match('(a+)+$', 'a' * 64 + 'b')",
    "recurses": "return f()",
    "recurses in C": "import sys; sys.setrecursionlimit(10**9); return f()",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "aborts": "import os; os.abort()",
    "exits": "import os; os._exit(0)",
    "exits politely": "import sys; sys.exit(0)",
    "closes its streams": "import os; os.closerange(0, 256)",
    "opens descriptors without end": "x = []\n    while True: x.append(open(@library))",
    "returns a deep list": "x = []\n    for _ in range(100_000): x = [x]\n    return x",
    "returns a list that holds itself": "x = []; x.append(x); return x",
    "returns a hundred megabytes": "return 'x' * 100_000_000",
    "returns surrogates": "return '\\ud800' * 10",
    "leaves a bomb for the end": "class B:\n        def __del__(self):\n            while True: pass\n    global b; b = B(); return 0",
    "writes at exit": "import atexit, os; atexit.register(lambda: os.write(@pipe, b'[{\"value\": 42}]\\n')); return 0",
    "writes a hundred megabytes of brackets": "import os\n    while True: os.write(@pipe, b'[' * 65536)",
    "answers with brackets": "import os; os.write(@pipe, b'[' * 200_000 + b'\\n'); return 0",
    "answers with what is not UTF-8": "import os; os.write(@pipe, b'\\xff\\xfe\\n'); return 0",
    "answers with an unknown tag": "import os; os.write(@pipe, b'[{\"value\": {\"$\": \"eval\", \"v\": \"1\"}}]\\n'); return 0",
    "answers with an unhashable set": "import os; os.write(@pipe, b'[{\"value\": {\"$\": \"set\", \"v\": [[1]]}}]\\n'); return 0",
    "answers with a long number": "import os; os.write(@pipe, b'[{\"value\": ' + b'9' * 100_000 + b'}]\\n'); return 0",
}  # fmt: skip

# What is not 42 and wants to be taken for it.
FORGERIES = {
    "equals everything": "class E:\n        __eq__ = lambda *a: True\n        __ne__ = lambda *a: False\n    return E()",
    "is an int with other ways": "class I(int):\n        __eq__ = lambda *a: True\n    return I(7)",
    "walks the frames": "import sys; g = sys._getframe()\n    while g:\n        for v in list(g.f_locals.values()):\n            if type(v) is int and v == 42: return v\n        g = g.f_back",
    "walks the garbage": "import gc\n    for o in gc.get_objects():\n        if type(o) is dict and 'expected' in o: return o['expected']",
    "patches json": "import json; json.dumps = lambda *a, **k: '[{\"passed\": true}]'; return 0",
    "patches the encoder": "import sys; sys.modules['__main__'].encode = lambda *a: {'passed': True}; return 0",
    "says that it passed": "import os; os.write(@pipe, b'{\"passed\": true}\\n'); return 0",
    "says so on stdout": "print('{\"passed\": true}'); return 0",
    "exits before it is judged": "raise SystemExit(0)",
    "returns a truth for a number": "return True",
    "returns the number as text": "return '42'",
    "returns the number as a float": "return 42.0",
    "returns not a number": "return float('nan')",
    "returns what pickles to code": "class P:\n        def __reduce__(self): return eval, ('42',)\n    return P()",
    "answers twice": "import os; os.write(@pipe, b'[{\"value\": 0}]\\n[{\"value\": 42}]\\n'); return 0",
    "answers with NaN": "import os; os.write(@pipe, b'[{\"value\": NaN}]\\n'); return 0",
    "answers for more calls": "import os; os.write(@pipe, b'[{\"value\": 42}, {\"value\": 42}]\\n'); return 0",
    "has a zero in its text": "return 42\0",
}  # fmt: skip


class Arena:
    """What the attacks are after, and the traces that they would leave."""

    def __enter__(self) -> Arena:
        self.folder = Path(tempfile.mkdtemp(prefix="arena-"))
        self.folder.chmod(0o777)
        self.secret, self.target = self.folder / "secret", self.folder / "target"
        self.secret.write_text("a secret")
        self.secret.chmod(0o666)
        self.tcp, self.udp = socket.create_server(("127.0.0.1", 0)), socket.socket(2, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.abstract.bind(f"\0{self.folder.name}")
        for one in (self.tcp, self.udp, self.abstract):
            one.setblocking(False)
        self.victim = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        self.memory = ctypes.create_string_buffer(b"a secret")
        self.signals: list[int] = []
        self.before = signal.signal(signal.SIGUSR1, lambda number, frame: self.signals.append(number))
        os.environ["SECRET_OF_PARENT"] = "a secret"
        packages = glob.glob(f"{Path(os.__file__).parent}/site-packages/**/*.py", recursive=True)
        self.names: dict[str, Any] = {
            "@secret": str(self.secret),
            "@folder": str(self.folder),
            "@target": str(self.target),
            "@package": packages[0] if packages else "/nowhere",
            "@library": os.__file__,
            "@parent": os.getpid(),
            "@victim": self.victim.pid,
            "@address": ctypes.addressof(self.memory),
            "@tcp": self.tcp.getsockname()[1],
            "@udp": self.udp.getsockname()[1],
            "@abstract": f"\0{self.folder.name}",
            "@pipe": 3,
        }
        return self

    def code(self, body: str) -> str:
        """A program of an attack's body; the number of the child's pipe is found by looking, as an attacker would."""
        for name, value in sorted(self.names.items(), key=lambda item: -len(item[0])):
            if name != "@pipe":
                body = body.replace(name, repr(value))
        body = body.replace("@pipe", "PIPE")
        find = """
        import os, stat
        PIPE = 0
        for fd in range(3, 64):
            try:
                if stat.S_ISFIFO(os.fstat(fd).st_mode): PIPE = fd
            except OSError: pass
        """
        return textwrap.dedent(find) + "def f():\n    " + body.strip() + "\n"

    def traces(self) -> list[str]:
        """What was done to what is outside, since the last look."""
        found = []
        if self.secret.read_text() != "a secret" or self.secret.stat().st_mode & 0o777 != 0o666:
            found.append("the secret was changed")
        found += [f"there is {path.name}" for path in self.folder.iterdir() if path != self.secret]
        for name, call in (
            ("TCP", self.tcp.accept),
            ("UDP", lambda: self.udp.recv(9)),
            ("abstract", lambda: self.abstract.recv(9)),
        ):
            with contextlib.suppress(BlockingIOError):
                call()
                found.append(f"something came by {name}")
        if self.signals:
            found.append(f"signals {self.signals}")
            self.signals.clear()
        if self.victim.poll() is not None:
            found.append("the victim is dead")
        return found

    def __exit__(self, *_: object) -> None:
        self.victim.kill()
        self.victim.wait()
        for one in (self.tcp, self.udp, self.abstract):
            one.close()
        signal.signal(signal.SIGUSR1, self.before)
        os.environ.pop("SECRET_OF_PARENT", None)
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)


def violated(sandbox: Any, arena: Arena, kind: str, name: str) -> tuple[list[str], Any]:
    """What an attack of a kind reached, and the outcome."""
    from synthbook.language.sandbox.pool import CallFailure, CodeTask

    body = {"reaches": REACHES, "burdens": BURDENS, "forgeries": FORGERIES}[kind][name]
    for _ in range(2):  # a machine that is busy elsewhere gets a second try; what is slow by itself is slow again
        began = time.perf_counter()
        outcome = sandbox.run(CodeTask(arena.code(body), "f", ((),)))
        spent = time.perf_counter() - began
        if spent <= SECONDS + 1:
            break
    found, (value,) = arena.traces(), outcome.values
    if spent > SECONDS + 1:
        found.append(f"took {spent:.1f} s")
    if value == "reached":
        found.append("reached what it was after")
    if kind == "forgeries" and type(value) is int and value == 42:
        found.append("was taken for right")
    if (
        kind == "reaches"
        and outcome.isolation == "os"
        and not isinstance(value, CallFailure)
        and value not in (0, None)
    ):
        found.append(f"returned {value!r}")
    return found, outcome


def main() -> None:
    """Run everything, and print what was violated, and who ran it."""
    from synthbook.language.sandbox.pool import Limits, Sandbox

    report: dict[str, Any] = {"uid": os.getuid(), "violations": {}, "isolation": set(), "attacks": 0}
    with Arena() as arena, Sandbox(Limits(SECONDS), jobs=1) as sandbox:
        for kind, attacks in (("reaches", REACHES), ("burdens", BURDENS), ("forgeries", FORGERIES)):
            for name in attacks:
                found, outcome = violated(sandbox, arena, kind, name)
                report["attacks"] += 1
                report["isolation"].add(outcome.isolation)
                if found:
                    report["violations"][name] = found
    print(json.dumps(report | {"isolation": sorted(report["isolation"]), "left": left()}))


def left() -> list[str]:
    """Children and folders that are still there."""
    from synthbook.language.sandbox.pool import CHILD

    found = glob.glob(f"{tempfile.gettempdir()}/synthbook-sandbox-*")
    for entry in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(CHILD).encode() in Path(entry).read_bytes():
                found.append(entry)
    return found


if __name__ == "__main__":
    main()
