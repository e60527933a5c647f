"""drain - no-op tasks a second from a full queue, with the CPU time that a task costs worker and server."""
import harness
import kit
import servers


def run(where, make, n, conf=None, results=True, workers=1, **more):
    """Start workers, drain once to warm up, measure, stop."""
    where.clean()
    conf = {**getattr(where, "conf", {}), **(conf or {})}
    if not results:
        conf["task_ignore_result"] = True
        if isinstance(where, servers.OnRabbit):
            more["counted"] = True  # nothing else tells when all is done
    up = [make(where.broker, where.backend if results else None, conf=conf, **more).start() for _ in range(workers)]
    try:
        where.probe(up, results)
        where.drain(min(n, 500), up, results)
        return where.drain(n, up, results)
    finally:
        for worker in up:
            worker.stop()


def measure(where, late, results, celery=True, bare=True, goals=(), rounds=None):
    conf = {"task_acks_late": True} if late else {}
    n = kit.Options.tasks
    report = kit.Report(f"drain, {where.name}, {'late' if late else 'early'} ack, results {'on' if results else 'off'}",
                        f"{n} no-op tasks, prefork -c 2")
    contenders = {"apium": lambda: run(where, kit.Apium, n, conf, results)}
    if late and isinstance(where, servers.OnRedis) and results:
        contenders["apium threads"] = lambda: run(where, kit.Apium, n, conf, results, pool="threads")
    if celery:
        contenders["celery"] = lambda: run(where, kit.Celery, max(n // 10, 500), conf, results)
    if bare:
        contenders["bare"] = lambda: where.bare(n, results)
    kit.alternate(report, contenders, rounds)
    goals = dict(goals)
    report.ratio("apium / celery", "apium", "celery", "tasks/s", goals.get("celery"))
    report.ratio("apium / bare", "apium", "bare", "tasks/s", goals.get("bare"))
    report.ratio("apium threads / bare", "apium threads", "bare", "tasks/s", goals.get("threads"))
    report.ratio("server CPU a task, apium / bare", "apium", "bare", "server us")
    report.done()


def redis():
    where = servers.OnRedis()
    measure(where, late=True, results=True, goals={"celery": 40, "bare": 0.6, "threads": 0.75})
    measure(where, late=False, results=True)
    measure(where, late=True, results=False)
    measure(where, late=False, results=False, celery=False, bare=False)
    where.stop()


def rabbitmq():
    for quorum in (False, True):
        where = servers.OnRabbit(quorum)
        # A classic queue's rounds differ by half, by when its process collects garbage: more of them tell the same each time.
        measure(where, late=True, results=True, celery=not quorum, goals={} if quorum else {"bare": 0.8},
                rounds=kit.Options.rounds * (1 if quorum else 3))
        measure(where, late=False, results=True, celery=False, bare=False)
        measure(where, late=True, results=False, celery=False)
        where.stop()


def sqlite():
    where = servers.OnSqlite()
    n = kit.Options.tasks
    report = kit.Report("drain, sqlite", f"{n} no-op tasks, prefork -c 2, synchronous=FULL")
    disk = {"one write and fsync": lambda: {"tasks/s": kit.program("fsync_rate", where.folder)[0]}}
    kit.alternate(report, {
        "apium late ack": lambda: run(where, kit.Apium, n, {"task_acks_late": True}),
        "apium early ack": lambda: run(where, kit.Apium, n),
        "late ack, results off": lambda: run(where, kit.Apium, n, {"task_acks_late": True}, results=False), **disk})
    best = report.median("apium late ack", "tasks/s")
    report.note(f"late ack, goal >= 5000 a second: {'yes' if best >= 5000 else 'NO'}")
    report.done()
    where.stop()


def pair():
    """Two workers on one queue, beside one."""
    where = servers.OnRedis()
    n = kit.Options.tasks
    conf = {"task_acks_late": True}
    report = kit.Report("two workers, redis", f"{n} no-op tasks, late ack, results on, prefork -c 2 each")
    kit.alternate(report, {"one": lambda: run(where, kit.Apium, n, conf), "two": lambda: run(where, kit.Apium, n, conf, workers=2)})
    report.ratio("two / one", "two", "one", "tasks/s")
    report.done()
    where.stop()


def events():
    """What task events cost, where the worker sends them."""
    where = servers.OnRedis()
    n = kit.Options.tasks
    conf = {"task_acks_late": True}
    heard = where.redis.pubsub()
    heard.psubscribe("/0.celeryev*")
    run(where, kit.Apium, 500, {**conf, "worker_send_task_events": True})
    told = any(message["type"] == "pmessage" for message in iter(lambda: heard.get_message(timeout=0.2), None))
    heard.close()
    if told:
        report = kit.Report("drain, redis, events", f"{n} no-op tasks, late ack, results on, prefork -c 2; nobody listens")
        kit.alternate(report, {"events off": lambda: run(where, kit.Apium, n, conf),
                               "events on": lambda: run(where, kit.Apium, n, {**conf, "worker_send_task_events": True})})
        report.ratio("on / off", "events on", "events off", "tasks/s")
        report.done()
    else:
        print("\nevents skipped: this worker sends none")
    where.stop()


def delayed():
    """The same drain with a millisecond of delay each way between worker and server."""
    where = servers.OnRedis()
    n = kit.Options.tasks
    conf = {"task_acks_late": True}
    straight = where.broker
    port = harness.free_port()
    proxy = harness.Process("delay", [str(kit.PROGRAMS / "delay"), str(port), str(where.server.port), "1000"]).start()

    def through():
        where.broker = where.backend = f"redis://127.0.0.1:{port}/0"
        try:
            return run(where, kit.Apium, n, conf)
        finally:
            where.broker = where.backend = straight
    report = kit.Report("drain with 1 ms of delay each way, redis", f"{n} no-op tasks, late ack, results on, prefork -c 2")
    kit.alternate(report, {"straight": lambda: run(where, kit.Apium, n, conf), "delayed": through})
    report.ratio("delayed / straight", "delayed", "straight", "tasks/s", 0.8)
    report.note("the proxy copies every byte twice on the same cores")
    report.done()
    proxy.kill_group()
    where.stop()
