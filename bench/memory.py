"""memory - start-up to the first task, and the proportional memory (PSS) of all of a worker's processes."""
import datetime
import threading
import time

import harness
import kit
import servers


def peak(worker, work):
    """The most that a worker has while something is done with it, MiB."""
    seen, over = [harness.pss_kib(worker.pid)], threading.Event()

    def watch():
        while not over.wait(0.1):
            seen.append(harness.pss_kib(worker.pid))
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        over.set()
        thread.join()
    return max(seen) / 1024


def one(where, make, n, held):
    where.clean()
    worker = make(where.broker, where.backend).start()
    try:
        where.probe()
        found = {"first task s": time.monotonic() - worker.began, "idle MiB": harness.pss_kib(worker.pid) / 1024}
        found["busy MiB"] = peak(worker, lambda: where.drain(n, [worker]))
        idle = harness.pss_kib(worker.pid) / 1024
        eta = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=3)).isoformat()
        where.redis.flushall()
        where.fill(held, "staged", eta=eta)
        where.redis.rename("staged", "celery")
        harness.eventually(lambda: not where.redis.exists("celery"), 600, "all delayed tasks are taken", every=0.05)
        found[f"MiB for {held} delayed"] = harness.pss_kib(worker.pid) / 1024 - idle
        return found
    finally:
        worker.kill_group()


def measure():
    where = servers.OnRedis()
    n, held = kit.Options.tasks, 10000 if kit.Options.quick else 100000
    report = kit.Report("start-up and memory, redis", f"prefork -c 2; busy: draining; delayed: tasks with an eta in three hours ({held // 20} for Celery)")
    kit.alternate(report, {"apium": lambda: one(where, kit.Apium, n, held),
                           "celery": lambda: one(where, kit.Celery, max(n // 10, 500), held // 20)}, rounds=min(3, kit.Options.rounds))
    for metric in ("idle MiB", "busy MiB"):
        report.ratio(f"{metric[:-4]}, apium / celery", "apium", "celery", metric, 0.1, at_most=True)
    report.ratio("start-up, apium / celery", "apium", "celery", "first task s")
    grown = report.median("apium", f"MiB for {held} delayed")
    report.note(f"{held} delayed tasks add {grown:.2f} MiB, goal < 1 MB: {'yes' if grown < 1 / 1.048576 else 'NO'}")
    report.done()
    where.stop()
