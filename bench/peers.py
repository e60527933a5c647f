"""peers - other task queues on the same Redis: Machinery, Asynq and gocraft/work in Go, Celery of Debian and the newest one.

The programs in bench/peers/ are built here when Go is on the machine and its modules can be had; the newest Celery lives in a venv
beside the build folder. What is not there is skipped, with the reason. Each peer runs with concurrency 2, as apium and Celery do, and
with its own: that of its README (10), for Machinery its default, two for each CPU.
"""
import os
import shutil
import subprocess
import sys

import drain
import harness
import kit
import servers

GO = {"asynq": (True, 10), "machinery": (True, 0), "gocraft": (False, 10)}  # has results? its own concurrency
VENV = harness.BUILD.with_name(harness.BUILD.name + "-celery")


def build(name):
    """The program, or None; and why not."""
    go = shutil.which("go")
    if not go:
        return None, "there is no Go on this machine"
    program = kit.PROGRAMS / "peers" / name
    done = subprocess.run([go, "build", "-mod=readonly", "-o", program, "."], cwd=kit.BENCH / "peers" / name, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, env={**os.environ, "GOWORK": "off"})
    if done.returncode:
        return None, f"go build: {(done.stdout.strip().splitlines() or ['it failed'])[-1]}"
    return program, None


def newest_celery():
    """(python, version), or (None, the reason)."""
    python = VENV / "bin" / "python"
    asked = [python, "-c", "import celery, redis; print(celery.__version__)"]
    steps = [] if python.exists() else [[sys.executable, "-m", "venv", VENV]]
    if steps or subprocess.run(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        steps.append([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "celery[redis]"])
    for step in steps:
        done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            return None, f"{' '.join(map(str, step[1:4]))}: {(done.stdout.strip().splitlines() or ['it failed'])[-1]}"
    return str(python), subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Newest(kit.Celery):
    """Celery of the venv."""
    python = None

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.argv[0] = self.python


def drained(where, program, n, concurrency, results):
    """It fills the queue, says so, and waits for a line before it works."""
    where.redis.flushall()
    peer = subprocess.Popen([program, *map(str, (where.server.port, n, concurrency)), "results" if results else "none"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if peer.stdout.readline() != "filled\n":
            raise AssertionError(f"{program} ended with {peer.wait(10)}")
        spent = kit.Spent([], where.pid)
        out = peer.communicate("go\n", timeout=600)[0]
    finally:
        peer.kill()
        peer.wait()
    rate, own = map(float, out.split())
    return {"tasks/s": rate, "worker us": own, **spent.each(n)}


def measure():
    where = servers.OnRedis()
    n = kit.Options.tasks
    programs, skipped = {}, []
    for name in GO:
        programs[name], why = build(name)
        if why:
            skipped.append(f"{name} skipped: {why}")
    Newest.python, version = newest_celery()
    if not Newest.python:
        skipped.append(f"newest Celery skipped: {version}")

    def of_go(name, concurrency, results):
        return lambda: drained(where, programs[name], n, concurrency, results)

    for results in (True, False):
        report = kit.Report(f"peers, redis, results {'on' if results else 'off'}", f"{n} no-op tasks, concurrency 2 or what is said; late ack where there is one")
        late = {"task_acks_late": True}
        contenders = {"apium": lambda: drain.run(where, kit.Apium, n, late, results),
                      "apium threads": lambda: drain.run(where, kit.Apium, n, late, results, pool="threads")}
        for name, (has_results, own) in GO.items():
            if programs[name] and (has_results or not results):
                contenders[name] = of_go(name, 2, results)
                contenders[f"{name} -c {own}" if own else f"{name}, default"] = of_go(name, own, results)
        few = max(n // 10, 500)
        contenders["celery"] = lambda: drain.run(where, kit.Celery, few, late, results)
        if Newest.python:
            contenders[f"celery {version}"] = lambda: drain.run(where, Newest, few, late, results)
        kit.alternate(report, contenders)
        for who in list(contenders)[2:]:
            report.ratio(f"apium / {who}", "apium", who, "tasks/s")
        for line in skipped:
            report.note(line)
        if not results and programs["machinery"]:
            report.note("Machinery acknowledges nothing: it pops a task, and one that runs is lost with the process")
        report.done()
    where.stop()
