"""What a command writes is seen at once and unchanged, by pipe, file or terminal, and its end is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import wait_until
from looseends.relay import OUTPUT_BYTES_MAX, Tail

Left = Callable[[], list[dict[str, Any]]]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Begin = Callable[..., "subprocess.Popen[str]"]


def test_output_is_seen_while_the_command_runs(begin: Begin) -> None:
    process = begin("--", "sh", "-c", "echo first; read answer; echo got $answer")
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "first\n"
    process.stdin.write("it\n")
    process.stdin.flush()
    assert process.stdout.readline() == "got it\n"
    assert process.wait(10) == 0


def test_two_streams_that_lead_to_one_place_keep_their_order(run: Run, left: Left, tmp_path: Path) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
    wanted = "".join(f"out {i}\nerr {i}\n" for i in range(1, 10))
    with open(tmp_path / "log", "w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "looseends.cli", "exec", "--", "sh", "-c", script], stdout=log, stderr=log, timeout=20
        )
    assert done.returncode == 0
    assert (tmp_path / "log").read_text() == wanted
    assert left()[-1]["result"]["output"] == wanted.rstrip()


def test_much_output_arrives_whole_and_only_its_end_is_kept(run: Run, left: Left) -> None:
    done = run("--", "sh", "-c", "seq 1 400000")
    assert done.stdout == "".join(f"{i}\n" for i in range(1, 400_001))
    result = left()[-1]["result"]
    assert result["output_bytes"] == len(done.stdout)
    assert result["output"].startswith("...\n") and result["output"].endswith("\n400000")
    assert len(result["output"]) <= OUTPUT_BYTES_MAX + 4


def test_a_reader_that_leaves_is_felt_by_the_command(left: Left, spool: str) -> None:
    """As `yes | head -1` ends at once."""
    line = f"{sys.executable} -m looseends.cli exec -- yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20)
    assert done.stdout == f"y\n{128 + signal.SIGPIPE}\n"
    assert left()[-1]["error"]["message"].startswith("killed by SIGPIPE")


def test_closed_streams_stay_closed(left: Left, spool: str) -> None:
    look = "import os\nfor fd in (0, 1, 2):\n try: os.fstat(fd); os._exit(9)\n except OSError as e: n = e.errno\nos._exit(40 + n)"
    line = 'exec "$0" -m looseends.cli exec --name closed -- "$0" -S -c "$1" <&- >&- 2>&-'
    done = subprocess.run(["bash", "-c", line, sys.executable, look], timeout=20)
    assert done.returncode == 40 + 9  # EBADF
    assert left()[-1]["error"]["message"] == "exit code 49"


def test_what_the_command_leaves_behind_goes_on_writing(left: Left, spool: str, tmp_path: Path) -> None:
    """A command that starts a daemon must not kill it by its end."""
    script = f"(while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo later; echo ok > {tmp_path}/wrote) & echo now"
    process = subprocess.Popen(
        [sys.executable, "-m", "looseends.cli", "exec", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    assert process.wait(10) == 0, "we end with the command, not with what it left"
    (tmp_path / "go").touch()
    assert process.communicate()[0] == "later\n"
    wait_until((tmp_path / "wrote").exists, "it to outlive its own output")
    assert left()[-1]["result"]["output"] == "now"


def test_without_output_the_command_has_our_own_streams(run: Run, left: Left) -> None:
    done = run("--output", "none", "--", "sh", "-c", "readlink /proc/$$/fd/1 /proc/$PPID/fd/1; exit 1")
    inner, outer = done.stdout.split()
    assert inner == outer
    assert left()[-1]["error"] == {"type": "ExitCode", "message": "exit code 1"}


SCRIPT = "echo a row of data; echo 1 row copied >&2"


def test_what_is_left_behind_and_never_stops_writing_does_not_hold_us(left: Left, spool: str) -> None:
    """A killed shell whose child floods on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "looseends.cli", "exec", "--", "sh", "-c", "yes & kill -9 $$"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    until = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < until:
        os.read(process.stdout.fileno(), 65536)
    assert process.poll() == -signal.SIGKILL
    assert os.read(process.stdout.fileno(), 65536), "it writes on"
    process.stdout.close()
    assert left()[-1]["error"]["type"] == "Signal"


@pytest.mark.parametrize(
    ("words", "to_file", "kept"),
    [
        ((), False, "a row of data\n1 row copied"),
        ((), True, "1 row copied"),
        (("--output", "errors"), False, "1 row copied"),
        (("--output=all",), True, "a row of data\n1 row copied"),
    ],
)
def test_what_goes_to_a_file_of_its_own_is_data_and_not_kept(
    left: Left, spool: str, tmp_path: Path, words: tuple[str, ...], to_file: bool, kept: str
) -> None:
    """`looseends exec -- pg_dump shop > shop.sql` must not put customers into the record."""
    command = [sys.executable, "-m", "looseends.cli", "exec", *words, "--", "sh", "-c", SCRIPT]
    with open(tmp_path / "dump", "w+") as dump:
        done = subprocess.run(command, stdout=dump if to_file else subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20)
        dump.seek(0)
        assert (dump.read() if to_file else done.stdout) == "a row of data\n" and done.stderr == "1 row copied\n"
    assert sorted(left()[-1]["result"]["output"].split("\n"), reverse=True) == kept.split("\n")


def test_output_is_progress_well_within_the_silence_that_would_be_a_stall(run: Run, left: Left) -> None:
    done = run("--progress-within", "400ms", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo step $i; sleep 0.05; done")
    assert done.returncode == 0
    started, progress, finished = left()
    assert (started["progress_within"], progress["type"], finished["type"]) == (0.4, "progress", "finished")
    assert progress["note"].startswith("step ") and finished["at"] - progress["at"] < 400_000_000


# --- terminals ----------------------------------------------------------------------------------------------------


class Terminal:
    """`looseends exec` in a session of its own, at a terminal of ours."""

    def __init__(self, *words: str) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))
        attach = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.tcsetpgrp(0, os.getpgrp())\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'looseends.cli', 'exec', *sys.argv[1:]])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", attach, *words], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.seen = b""

    def wait_for(self, text: bytes) -> None:
        until = time.monotonic() + 20
        while text not in self.seen:
            assert select.select([self.master], [], [], max(0.0, until - time.monotonic()))[0], self.seen
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:  # how it says that the last one left
                assert text in self.seen, self.seen

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)


@pytest.fixture
def terminal(spool: str) -> Iterator[Callable[..., Terminal]]:
    begun: list[Terminal] = []

    def start(*words: str) -> Terminal:
        begun.append(Terminal(*words))
        return begun[-1]

    yield start
    for one in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()
        if one.master >= 0:
            one.hang_up()


def test_at_a_terminal_the_command_is_at_one_and_its_end_is_kept(terminal: Callable[..., Terminal], left: Left) -> None:
    script = (
        'test -t 0 && test -t 1 && test -t 2 && echo three; stty size <&1; printf "\\033[31mred\\033[0m 10%%\\r99%%\\n"; exit 3'
    )
    found = terminal("--", "sh", "-c", script)
    found.wait_for(b"99%")
    assert found.process.wait(10) == 3
    assert b"three\r\n33 101\r\n\x1b[31mred\x1b[0m 10%\r99%" in found.seen, "as it came, line ends turned once"
    assert left()[-1]["error"]["traceback"] == "three\n33 101\n99%"


def test_keys_reach_the_command_once(terminal: Callable[..., Terminal], left: Left) -> None:
    """Ctrl-C goes to the whole job by itself; forwarded, it would come twice."""
    script = (
        "import signal, sys, time; seen = []\n"
        "signal.signal(signal.SIGINT, lambda *_: seen.append(1)); print('ready', flush=True)\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(0.3); print('interrupts:', len(seen), flush=True); sys.exit(130)"
    )
    found = terminal("--", sys.executable, "-S", "-c", script)
    found.wait_for(b"ready")
    found.type(b"\x03")
    found.wait_for(b"interrupts: 1")
    assert found.process.wait(10) == 130
    assert (left()[-1]["type"], left()[-1]["reason"]) == ("cancelled", "requested")


def test_a_terminal_that_hangs_up_ends_both(terminal: Callable[..., Terminal], left: Left) -> None:
    found = terminal("--", "sh", "-c", "echo pid $$ ready; exec sleep 60")
    found.wait_for(b"ready")
    found.hang_up()
    assert found.process.wait(10) == -signal.SIGHUP
    assert left()[-1]["error"]["message"].startswith("killed by SIGHUP")


def test_the_command_learns_the_terminals_new_size(terminal: Callable[..., Terminal]) -> None:
    script = "trap 'stty size <&1; exit 0' WINCH; echo ready; while :; do sleep 0.02; done"
    found = terminal("--", "sh", "-c", script)
    found.wait_for(b"ready")
    fcntl.ioctl(found.master, termios.TIOCSWINSZ, struct.pack("4H", 50, 132, 0, 0))
    found.wait_for(b"50 132")
    assert found.process.wait(10) == 0


def test_ctrl_z_stops_both_and_both_go_on(spool: str) -> None:
    """Under a shell with job control, which puts them into a group of their own."""
    line = (
        "set -m; exec 3<&0; \"$0\" -m looseends.cli exec -- sh -c 'echo $$ $PPID; kill -TSTP 0; echo went on; exit 6' <&3 & "
        "wait -n -f 2>/dev/null || true; jobs -l; "
        "while ! jobs -l | grep -q Stopped; do sleep 0.02; done; echo stopped; fg %1; echo code $?"
    )
    done = subprocess.run(
        ["bash", "-c", line, sys.executable], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
    )
    assert "stopped\n" in done.stdout and done.stdout.endswith("went on\ncode 6\n"), done


# --- what is kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"", ""),
        (b"one\ntwo\n\n", "one\ntwo"),
        (b"10%\r50%\r100%\ndone\r\n", "100%\ndone"),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain", "red plain"),
        (b"bad \xff byte\x00\x08", "bad \ufffd byte"),
        (b"tab\tstays", "tab\tstays"),
    ],
)
def test_what_is_kept_reads_as_a_person_saw_it(written: bytes, kept: str) -> None:
    tail = Tail()
    for byte in written:
        tail.add(bytes([byte]))
    assert tail.text() == kept


def test_a_character_cut_at_the_bound_harms_nothing() -> None:
    tail = Tail()
    tail.add("é".encode() * OUTPUT_BYTES_MAX + b"x")
    assert tail.text().endswith("ééx") and len(tail.text().encode()) <= OUTPUT_BYTES_MAX + 4
