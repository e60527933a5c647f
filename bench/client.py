"""client - what the sender sees: calls a second, and the time from sending a task to having its result."""
import sys

import harness
import kit
import servers


def of_celery(broker, backend, *args, conf=None):
    return kit.numbers([sys.executable, kit.BENCH / "celery_client.py", *args], kit.celery_environment(broker, backend, conf))


def publish():
    one_by_one = kit.Options.tasks // 10

    def each(where, push, n):
        env = harness.environment(where.broker, None)

        def rate(make):
            def one():
                where.clean()
                return {"calls/s": make()[0]}
            return one
        report = kit.Report(f"publish, {where.name}", f"calls of tasks.noop into an empty queue; {n} in bulk, {one_by_one} one by one")
        port = where.server.port
        kit.alternate(report, {
            "apium single": rate(lambda: kit.program("client", "single", one_by_one, **env)),
            "apium bulk": rate(lambda: kit.program("client", "bulk", n, **env)),
            "kombu": rate(lambda: of_celery(where.broker, None, "single", one_by_one,
                                            conf={"broker_transport_options": {"confirm_publish": True}} if push == "amqp_push" else {})),
            "bare single": rate(lambda: kit.program(push, port, "celery", one_by_one, 1)),
            "bare window of 256": rate(lambda: kit.program(push, port, "celery", n, 256))})
        report.ratio("bulk / bare window", "apium bulk", "bare window of 256", "calls/s", 0.7)
        report.ratio("single / bare single", "apium single", "bare single", "calls/s")
        report.ratio("bulk / kombu", "apium bulk", "kombu", "calls/s")
        report.done()
        where.stop()
    each(servers.OnRedis(), "redis_push", kit.Options.tasks * 10)
    each(servers.OnRabbit(), "amqp_push", kit.Options.tasks)


def latency():
    n = 500 if kit.Options.quick else 3000
    where = servers.OnRedis()
    port = harness.free_port()
    slow = harness.Process("delay", [str(kit.PROGRAMS / "delay"), str(port), str(where.server.port), "1000"]).start()
    far = f"redis://127.0.0.1:{port}/0"

    def served(make, url, ask):
        def one():
            where.clean()
            worker = make(where.broker if url is None else url, where.backend if url is None else url).start()
            try:
                where.probe()
                found = {}
                for name, args in (("alone", ("lone", n)), ("64 in flight", ("flight", n, 64))):
                    found[name + " p50 us"], found[name + " p99 us"] = ask(args)
                return found
            finally:
                worker.stop()
        return one

    def of_apium(url):
        env = harness.environment(url, url)
        return lambda args: kit.program("client", *args, **env)

    def bare(at):
        def one():
            where.clean()
            median, late = kit.program("redis_lone", at, n)
            return {"alone p50 us": median, "alone p99 us": late}
        return one

    def near(name, what):
        report = kit.Report(name, f"from sending a task to having its result, {n} tasks, prefork -c 2, {what}")
        kit.alternate(report, {
            "apium": served(kit.Apium, None, of_apium(where.broker)),
            "celery": served(kit.Celery, None,
                             lambda args: of_celery(where.broker, where.backend, *args[:1], max(n // 10, 100), *args[2:])),
            "bare": bare(where.server.port)})
        report.ratio("alone, apium / bare", "apium", "bare", "alone p50 us", 1.5, at_most=True)
        report.ratio("alone, celery / apium", "celery", "apium", "alone p50 us")
        report.done()

    with kit.apart(where.server.pid):
        near("latency, redis", "the server on a core of its own, the rest on another")
    near("latency on any core, redis", "on whichever cores the scheduler chooses")
    n = 300
    report = kit.Report("latency with 1 ms of delay each way, redis", f"worker and sender behind the delay, {n} tasks")
    kit.alternate(report, {
        "apium": served(kit.Apium, far, of_apium(far)),
        "celery": served(kit.Celery, far, lambda args: of_celery(far, far, *args[:1], max(n // 3, 70), *args[2:])),
        "bare": bare(port)})
    report.ratio("alone, apium / bare", "apium", "bare", "alone p50 us", 1.5, at_most=True)
    report.ratio("alone, celery / apium", "celery", "apium", "alone p50 us")
    report.done()
    slow.kill_group()
    where.stop()
