import json
import os
import subprocess
import sys

import pytest

from model.machine import peak_memory, usable_cores

MEGABYTE = 2**20


def in_a_process(program):
    made = subprocess.run(
        [sys.executable, "-c", f"from model.machine import *\n{program}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(made.stdout)


def test_the_peak_stays_when_memory_is_given_back():
    program = "before = peak_memory()\nheld = b'x' * (200 * 2**20)\ndel held\n"
    before, after = in_a_process(program + "print([before, peak_memory()])")
    assert after >= before + 190 * MEGABYTE  # the kernel counts pages in batches


def test_what_the_parent_held_is_not_counted():
    held = b"x" * (300 * MEGABYTE)
    assert peak_memory() > 300 * MEGABYTE
    assert in_a_process("print(peak_memory())") < 100 * MEGABYTE
    del held


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not on this system")
def test_cores_that_it_may_not_use_are_not_counted():
    assert usable_cores() == len(os.sched_getaffinity(0))
    program = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert in_a_process(program + "print(usable_cores())") == 1
