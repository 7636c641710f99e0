import random
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_trainings_killed_at_random_moments_end_with_the_same_bits(tmp_path):
    """A tenth of what the program is for: kill -9, SIGTERM to one and to all, a full disk; workers, two processes."""
    seed = str(random.randrange(2**31))
    command = [sys.executable, BENCHMARKS / "kills.py", "10", "--seed", seed, "--keep", tmp_path]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ended with") == 10
