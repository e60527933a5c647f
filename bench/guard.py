"""guard - instructions of the hot path, counted by callgrind, beside a budget that is checked in.

Counts are the same on a busy machine and on an idle one. Two things are counted: the stations of bench/hot.c, which are pure code,
and a real worker (Redis, late acknowledgement, results) with the functions that a task passes in it.
Compilers differ by some percent, and how many tasks come in one batch too: hence the tolerance.
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "support"))
import harness  # noqa: E402

BUDGET = pathlib.Path(__file__).with_name("budget.json")
TURNS = 500
TASKS = 4000
STATIONS = ["station_read", "station_write", "station_slot", "station_settle"]


def inclusive(folder, wanted, count):
    """{function: instructions a task}, with all that it calls."""
    files = sorted(str(path) for path in pathlib.Path(folder).glob("callgrind.out.*"))
    text = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--show-percs=no", "--tree=none", "--auto=no", *files],
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {}
    for line in text.splitlines():
        seen = re.match(r"\s*([\d,]+)\s+(?:\S+:)?([A-Za-z_]\w*)(?:\.\w+)*(?:'2)?\s*(?:\[|$)", line)
        if seen and seen[2] in wanted and seen[2] not in found:
            found[seen[2]] = int(seen[1].replace(",", "")) / count
        if "PROGRAM TOTALS" in line:
            found["all"] = int(line.split()[0].replace(",", "")) / count
    return found


def codec():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind.out.hot", str(harness.BUILD / "bench" / "hot"), str(TURNS)],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {name: n for name, n in inclusive(folder, STATIONS, TURNS).items() if name != "all"}


def worker():
    """With a pool of threads: valgrind does not know the system calls by which a fork server is watched."""
    import servers
    names = {"apm_intake_batch": "worker intake and gate", "apm_settle": "worker settlement", "deliver": "worker delivery"}
    where = servers.OnRedis()
    folder = tempfile.mkdtemp()
    try:
        where.fill(TASKS, "celery")
        process = harness.Process("apium-worker", [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind.out.%p", harness.APIUM, "-A", harness.TASKS, "worker",
            "-l", "WARNING", "-c", "1", "-P", "threads"], harness.environment(where.broker, where.backend, {"task_acks_late": True})).start()
        harness.eventually(lambda: not where.redis.exists("celery", "unacked") and where.redis.dbsize() >= TASKS, 120, process.log, every=0.1)
        process.stop()
        for path in pathlib.Path(folder).glob("callgrind.out.*"):
            if not path.name.endswith(f".{process.pid}"):
                path.unlink()
        found = inclusive(folder, list(names), TASKS)
        return {name: found[function] for function, name in names.items()}
    finally:
        shutil.rmtree(folder)
        where.stop()


def main(write=False, only_codec=False):
    if not shutil.which("valgrind"):
        harness.lacking("valgrind")
    counted = codec()
    if not only_codec:
        counted.update(worker())
    if write:
        BUDGET.write_text(json.dumps({"tolerance": 0.15, "instructions": {name: round(n) for name, n in counted.items()}}, indent=2) + "\n")
    budget = json.loads(BUDGET.read_text())
    over = 0
    print(f"  {'instructions a task':26}{'counted':>9}{'budget':>9}")
    for name, most in budget["instructions"].items():
        if only_codec and name not in STATIONS:
            continue
        n = counted.get(name)
        bad = n is None or n > most * (1 + budget["tolerance"])
        over += bad
        print(f"  {name:26}{n if n is None else round(n):>9}{most:>9}{'   OVER BUDGET' if bad else ''}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(only_codec="--codec" in sys.argv))
