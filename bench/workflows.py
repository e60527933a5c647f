"""workflows - chords and chains on workers of both kinds: seconds from sending to the result, and how they grow.

Redis is broker and result store, prefork -c 2. bench/flow.c sends and waits, so the sender is the same for both. Sizes beyond what
Celery does in reasonable time are measured with apium alone.
"""
import os
import statistics
import subprocess
import sys
import pathlib

import harness

BENCH = pathlib.Path(__file__).resolve().parent
SIZES = {"chord": ([100, 1000, 10000], [100000]), "chain": ([100, 1000], [10000])}  # of both, of apium alone


def run(kind, url, sizes, peak):
    """One worker and everything it is given: {(shape, n): seconds}, and its memory's peak in MiB."""
    worker = kind(url).start()
    found = {}
    try:
        for shape, n in sizes:
            done = subprocess.run([harness.BUILD / "bench" / "flow", shape, str(n)], check=True, stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, **harness.environment(url, url)}, timeout=900)
            found[shape, n] = float(done.stdout.split()[1])
        peak.append(sum(high_water_kib(pid) for pid in harness.tree(worker.pid)) / 1024)
    finally:
        worker.kill_group()
    return found


def high_water_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)


def apium(url):
    return harness.Worker(url, url, "-c", "2")


class Celery(harness.Process):
    def __init__(self, url):
        super().__init__("celery", [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-l", "INFO", "-c", "2",
                                    "--without-gossip", "--without-mingle", "--without-heartbeat"],
                         {"BENCH_BROKER": url, "BENCH_BACKEND": url, "PYTHONPATH": str(BENCH)})

    def start(self):
        super().start()
        harness.eventually(lambda: " ready." in self.log(), 60, "Celery is ready")
        return self


def main(rounds):
    server = harness.Redis().start()
    url = server.url()
    both = [(shape, n) for shape, (sizes, _) in SIZES.items() for n in sizes]
    alone = [(shape, n) for shape, (_, sizes) in SIZES.items() for n in sizes]
    seen = {"apium": [], "celery": []}
    peaks = {"apium": [], "celery": [], "alone": []}
    for i in range(rounds):
        for who in ("apium", "celery") if i % 2 == 0 else ("celery", "apium"):
            server.client().flushall()
            seen[who].append(run(apium if who == "apium" else Celery, url, both, peaks[who]))
    server.client().flushall()
    large = run(apium, url, alone, peaks["alone"])
    print(f"\nworkflows on Redis, prefork -c 2, seconds from sending to the result, medians of {rounds} alternated rounds")
    print(f"  {'':14} {'apium':>9} {'a part':>9} {'celery':>9} {'ratio':>7}")
    for shape, n in both + alone:
        ours = statistics.median(r[shape, n] for r in seen["apium"]) if (shape, n) in both else large[shape, n]
        line = f"  {shape:6} {n:7} {ours:9.3f} {ours / n * 1e6:6.0f} us"
        if (shape, n) in both:
            theirs = statistics.median(r[shape, n] for r in seen["celery"])
            line += f" {theirs:9.3f} {theirs / ours:7.1f}"
        print(line)
    print(f"  peak memory of all processes, MiB: apium {statistics.median(peaks['apium']):.0f}, "
          f"celery {statistics.median(peaks['celery']):.0f}, apium at the largest sizes {peaks['alone'][0]:.0f}", flush=True)
    server.stop()
