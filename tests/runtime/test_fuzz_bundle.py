"""A short form of fuzz_bundle.py, and proof that it sees what it looks for."""

import os
import random
import re
import subprocess
import sys
import time

import fuzz_bundle


def test_mutations_open_or_are_refused_in_words():
    """In a process of its own, without threads: it splits."""
    command = [sys.executable, fuzz_bundle.__file__, "--mutations", str(10 * len(fuzz_bundle.USUAL))]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in fuzz_bundle.KINDS:
        refused, opened = (re.search(rf"(\d+)  {kind}: {what}", done.stdout) for what in ("refused", "opened"))
        all_of_it = 10 * fuzz_bundle.USUAL.count(kind)
        assert int(refused[1]) + int(opened[1] if opened else 0) == all_of_it and int(refused[1]) > all_of_it / 3


def test_a_mutation_is_made_from_its_number_alone(tmp_path):
    base = fuzz_bundle.make_base(tmp_path)
    for make in (fuzz_bundle.manifest_text, fuzz_bundle.zip_bytes, fuzz_bundle.program_damaged):
        assert make(base, random.Random(5)) == make(base, random.Random(5)) != make(base, random.Random(6))


def test_exceptions_crashes_and_hangs_are_each_reported_and_the_rest_goes_on(monkeypatch):
    faults = {0: lambda: {}["a"], 1: os.abort, 2: lambda: time.sleep(60)}
    monkeypatch.setattr(fuzz_bundle, "LONGEST_S", 1)
    monkeypatch.setattr(fuzz_bundle.random, "Random", lambda seed: seed)
    monkeypatch.setitem(fuzz_bundle.KINDS, "manifest", lambda base, seed: faults.get(seed, int)())
    result = fuzz_bundle.fuzz(0, 6, ["manifest"])
    first, second, third = result.failures
    assert "0 (manifest)" in first and "KeyError" in first
    assert second == "1 (manifest) crashed by SIGABRT" and third == "2 (manifest) hung"
    assert result.counts["manifest: opened"] == 3
