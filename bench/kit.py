"""kit - servers, workers of both kinds, alternated rounds, and what is said of them.

A contender is a function that runs once and gives {metric: number}. Rounds alternate their order; medians and extremes are of all
rounds; a ratio is the median of the ratios within each round. Absolute figures belong to a machine and a minute.
"""
import contextlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
import urllib.request

import harness

BENCH = pathlib.Path(__file__).resolve().parent
PROGRAMS = harness.BUILD / "bench"
TICK = os.sysconf("SC_CLK_TCK")


class Options:
    """What the command line asked for."""
    rounds, tasks, deepest, json_path, quick = 5, 20000, 1000000, None, False


found = {"measures": [], "curves": []}  # what the JSON will have


def show(value):
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def print_samples(samples, head, column):
    """A row each: who, or what size, in a column of that format, and every metric."""
    metrics = list(dict.fromkeys(metric for found in samples.values() for metric in found[0]))
    print(f"  {head:{column}}" + "".join(f"{metric:>26}" for metric in metrics))
    for who, found in samples.items():
        print(f"  {who:{column}}" + "".join(f"{cell(found, metric):>26}" for metric in metrics))


def cell(samples, metric):
    """median (lowest-highest)"""
    values = [s[metric] for s in samples if metric in s]
    return f"{show(statistics.median(values))} ({show(min(values))}-{show(max(values))})" if values else ""


@contextlib.contextmanager
def apart(pid):
    """A server on a core of its own, as if it were on another machine, and all that is started meanwhile on a second one. Otherwise the
    scheduler's choice of cores is what a chain of wake-ups measures: of the bare loop it makes 80 us or 300."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        yield
        return
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cores[:1])
    os.sched_setaffinity(0, cores[1:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), cores)


class Report:
    """One measure: its contenders' figures, ratios within the rounds, and what has to be said with them."""

    def __init__(self, name, what):
        self.name, self.what = name, what
        self.samples, self.ratios, self.notes = {}, [], []

    def median(self, who, metric):
        values = [s[metric] for s in self.samples.get(who, []) if metric in s]
        return statistics.median(values) if values else None

    def ratio(self, text, above, below, metric, wanted=None, at_most=False):
        """above and below are contenders, or (contender, metric) pairs; wanted is what a promise says."""
        pairs = zip(self.samples.get(above, []), self.samples.get(below, []))
        values = [a[metric] / b[metric] for a, b in pairs if a.get(metric) and b.get(metric)]
        if values:
            self.ratios.append({"text": text, "median": statistics.median(values), "low": min(values), "high": max(values),
                                "wanted": wanted, "at_most": at_most})

    def note(self, text):
        self.notes.append(text)

    def done(self):
        found["measures"].append(self.data())
        print(f"\n{self.name}: {self.what}")
        print_samples(self.samples, "", "22")
        for r in self.ratios:
            wanted = ""
            if r["wanted"] is not None:
                holds = r["median"] <= r["wanted"] if r["at_most"] else r["median"] >= r["wanted"]
                wanted = f"   goal {'<=' if r['at_most'] else '>='} {show(r['wanted'])}: {'yes' if holds else 'NO'}"
            print(f"  {r['text']}: {show(r['median'])} ({show(r['low'])}-{show(r['high'])}){wanted}")
        for note in self.notes:
            print(f"  {note}")
        sys.stdout.flush()

    def data(self):
        return {"name": self.name, "what": self.what, "samples": self.samples, "ratios": self.ratios, "notes": self.notes}


def alternate(report, contenders, rounds=None):
    for i in range(rounds or Options.rounds):
        names = list(contenders)
        for who in names if i % 2 == 0 else reversed(names):
            report.samples.setdefault(who, []).append(contenders[who]())
    report.samples.update({who: report.samples[who] for who in contenders})
    return report


def write_json():
    if not Options.json_path:
        return
    run = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "rounds": Options.rounds, "tasks": Options.tasks,
           "cores": os.cpu_count(), "load": os.getloadavg(), **found}
    text = json.dumps(run, indent=1)
    if Options.json_path == "-":
        print(text)
    else:
        pathlib.Path(Options.json_path).write_text(text + "\n")


def at_rest(look):
    """What look() gives once it has given the same for a while."""
    seen = []

    def same():
        seen.append(look())
        return len(seen) > 6 and len(set(seen[-6:])) == 1
    harness.eventually(same, 60, "nothing moves", every=0.05)
    return seen[-1]


def reached(count, n, timeout=600, what="all tasks are done"):
    """Wait until count() gives n. To look on costs processor time that the measured ones lack: it is done often only near the end, where
    it is by how fast they went until then; at the beginning, when that says little, after twice the time each."""
    began = time.monotonic()
    while (have := count()) < n:
        spent = time.monotonic() - began
        if spent > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what} ({have} of {n})")
        time.sleep(min(max(spent * (n - have) / have / 2 if have > 0 else 0.01, 0.002), max(spent, 0.01), 0.25))


# ---- what a process costs ----

def cpu_s(pids):
    """CPU seconds that these processes, with all their threads, have used: by the scheduler's nanoseconds where the kernel tells them."""
    total = 0.0
    for pid in pids:
        try:
            threads = list(pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))
            if threads:
                total += sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
            else:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / TICK
        except OSError:
            pass
    return total


class Spent:
    """CPU time of all workers and of a server since then, in microseconds a task."""

    def __init__(self, workers, server_pid):
        self.pids = {"worker us": [worker.pid for worker in workers], "server us": [server_pid] if server_pid else []}
        self.before = {name: self.used(pids) for name, pids in self.pids.items() if pids}

    @staticmethod
    def used(pids):
        return cpu_s(one for pid in pids for one in harness.tree(pid))

    def each(self, n):
        return {name: (self.used(self.pids[name]) - before) / n * 1e6 for name, before in self.before.items()}


# ---- workers ----

class Apium(harness.Worker):
    """At WARNING nobody says "ready": a probe task tells when it is up. counted: it serves how many tasks it has done."""

    def __init__(self, broker, backend, *options, conf=None, pool="prefork", counted=False):
        self.port = harness.free_port() if counted else None
        serve = ("--http", f"127.0.0.1:{self.port}") if counted else ()
        super().__init__(broker, backend, "-c", "2", "-P", pool, *serve, *options, level="WARNING", conf=conf)

    def start(self):
        self.began = time.monotonic()
        return harness.Process.start(self)

    def succeeded(self):
        """How many tasks; 0 while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return 0
        return sum(int(n) for n in re.findall(r"^celery_task_succeeded_total\{.*\} (\d+)$", text, re.M))


class Celery(harness.Process):
    def __init__(self, broker, backend, *options, conf=None, level="WARNING"):
        super().__init__("celery", [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-l", level, "-c", "2",
                                    "--without-gossip", "--without-mingle", "--without-heartbeat", *options],
                         celery_environment(broker, backend, conf))

    def start(self):
        self.began = time.monotonic()
        return super().start()

    def stop(self, timeout=0):
        """Its warm shutdown sometimes does not end, and nothing is to be kept."""
        self.kill_group()


def celery_environment(broker, backend, conf=None):
    return {"BENCH_BROKER": broker, "BENCH_BACKEND": backend or "", "BENCH_CONF": json.dumps(conf or {}), "PYTHONPATH": str(BENCH)}


def numbers(argv, env):
    """Run a program; the numbers it prints."""
    out = subprocess.run([*map(str, argv)], check=True, stdout=subprocess.PIPE, text=True, timeout=900, env={**os.environ, **env}).stdout
    return [float(word) for word in out.split()]


def program(name, *args, **env):
    """One of bench's."""
    return numbers([PROGRAMS / name, *args], env)
