"""Runs a command within a pseudo-terminal, as a person would: terminal.py COLUMNSxROWS STEPS -- COMMAND...

STEPS is a JSON list; each step waits until `when`, a pattern, has been shown since the step before, then does one of `type` (text),
`size` ([columns, rows]) or `signal` (a number). What the terminal was sent goes to stdout, byte for byte; stderr says whether the
terminal was left `cooked` or `raw`. Exits as the command did (128 + N for signal N), 124 if that took longer than five minutes.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

DEADLINE_SECONDS = 300


def resize(terminal, columns, rows):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def main():
    columns, rows = map(int, sys.argv[1].split("x"))
    steps = json.loads(sys.argv[2])
    ours, theirs = pty.openpty()
    resize(ours, columns, rows)
    child = subprocess.Popen(
        sys.argv[4:], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    seen, started = bytearray(), time.monotonic()
    while True:
        ended = child.poll() is not None
        if select.select([ours], [], [], 0 if ended else 0.1)[0]:
            shown = os.read(ours, 65536)
            sys.stdout.buffer.write(shown)
            seen += shown
        elif ended:
            break
        if time.monotonic() - started > DEADLINE_SECONDS:
            child.kill()
            child.wait()
            sys.stderr.write("too long\n")
            return 124
        if steps and re.search(steps[0]["when"].encode(), seen):
            step = steps.pop(0)
            seen.clear()
            if "type" in step:
                os.write(ours, step["type"].encode())
            if "size" in step:
                resize(ours, *step["size"])
            if "signal" in step:
                child.send_signal(step["signal"])
    modes = termios.tcgetattr(theirs)[3]
    cooked = modes & termios.ICANON and modes & termios.ECHO and modes & termios.ISIG
    sys.stderr.write("cooked\n" if cooked else "raw\n")
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


sys.exit(main())
