"""A Python worker and a C worker on one queue: every task once, whoever takes it."""
import base64
import json
import signal
import time
import unittest
import uuid

import harness

servers = harness.Servers()
tearDownModule = servers.stop


def send_all(app, name, count, **options):
    with app.pool.acquire(block=True) as connection, app.amqp.Producer(connection) as producer:
        for n in range(count):
            app.send_task(name, (str(n),), producer=producer, **options)


def send_copies(app, client, name, count, **options):
    """So many that C workers are busy with them for seconds: a message of Celery's, copied with other ids, tags and arguments."""
    app.send_task(name, ("template",), queue="template", **options)
    text = client.rpop("template").decode()
    message = json.loads(text)
    task_id, body, tag = message["headers"]["id"], message["body"], message["properties"]["delivery_tag"]
    args = base64.b64decode(body).decode()
    pipe = client.pipeline(transaction=False)
    for n in range(count):
        mine = base64.b64encode(args.replace("template", str(n)).encode()).decode()
        copy = text.replace(task_id, str(uuid.uuid4())).replace(tag, str(uuid.uuid4())).replace(body, mine)
        pipe.lpush("celery", copy.replace('"template"', '"celery"'))
    pipe.execute()


class SharedQueue(unittest.TestCase):
    def exactly_once(self, broker, backend, count, timeout):
        ledger = harness.Ledger()
        app = harness.app(broker, backend)
        python = harness.CeleryWorker(broker, backend, "-c", "2", env=ledger.env).start()
        apium = harness.Worker(broker, backend, "-c", "2", module=harness.LEDGER, env=ledger.env).start()
        try:
            send_all(app, "ledger.work", count, ignore_result=True)
            harness.eventually(lambda: len(ledger.count("end")) == count, timeout, f"{count} tasks have ended", every=0.2)
            begun, ended = ledger.count("begin"), ledger.count("end")
            self.assertEqual({k: n for k, n in begun.items() if n != 1}, {})
            self.assertEqual({k: n for k, n in ended.items() if n != 1}, {})
            by_c = set(str(pid) for pid in apium.children()[1])
            share = sum(1 for word, _, pid, _ in ledger.lines() if word == "end" and pid in by_c)
            self.assertTrue(0 < share < count, f"the C worker ran {share} of {count}")
        finally:
            app.close()
            self.assertEqual(apium.stop(), 0)
            python.stop()
        self.assertEqual(len(ledger.count("begin")), count)

    def test_ten_thousand_on_redis(self):
        redis = servers.redis
        self.exactly_once(redis.url(0), redis.url(1), 10_000, 180)
        self.assertEqual(redis.client(0).hlen("unacked"), 0)
        self.assertEqual(redis.client(0).zcard("unacked_index"), 0)

    def test_two_thousand_on_rabbitmq(self):
        self.exactly_once(servers.rabbitmq.url(), servers.redis.url(2), 2_000, 90)


class VisibilityTimeout(unittest.TestCase):
    def test_a_task_longer_than_it_runs_once(self):
        """The Python nodes take back what is older than 30 s, the C node's setting is 20 s, the task takes 45 s."""
        redis, ledger = servers.redis, harness.Ledger()
        options = {"broker_transport_options": {"visibility_timeout": 30}}
        shorter = {"broker_transport_options": {"visibility_timeout": 20}}
        app = harness.app(redis.url(4), redis.url(5))
        apium = harness.Worker(redis.url(4), redis.url(5), "-c", "2", module=harness.LEDGER, env=ledger.env, conf=shorter)
        apium.start()
        app.send_task("ledger.sure", ("long", 45_000))
        harness.eventually(lambda: ledger.count("begin"), 10)
        python = harness.CeleryWorker(redis.url(4), redis.url(5), "-c", "1", env=ledger.env, conf=options).start()
        try:
            harness.eventually(lambda: ledger.count("end"), 60, every=0.2)
            # A copy that was given back would be waiting, or be running by now.
            harness.eventually(lambda: redis.client(4).hlen("unacked") == 0, 10)
            self.assertEqual(ledger.count("begin"), {"long": 1})
            self.assertEqual(redis.client(4).llen("celery"), 0)
        finally:
            app.close()
            python.stop()
            apium.stop()


class GivingBack(unittest.TestCase):
    def test_a_python_worker_gives_back_while_c_workers_drain(self):
        """What a stopped Python worker had fetched is in the queue or done within 5 s, with C workers at full rate."""
        redis, ledger = servers.redis, harness.Ledger()
        broker, backend, client = redis.url(6), redis.url(7), redis.client(6)
        app = harness.app(broker, backend)
        # Slow tasks first: the Python worker runs two of them and holds more.
        python = harness.CeleryWorker(broker, backend, "-c", "2", "--prefetch-multiplier", "20", env=ledger.env).start()
        for n in range(40):
            app.send_task("ledger.work", (f"slow-{n}", 300), ignore_result=True)
        harness.eventually(lambda: client.hlen("unacked") >= 30, 20, "the Python worker has fetched")
        send_copies(app, client, "ledger.work", 40_000, ignore_result=True)
        apium = [harness.Worker(broker, backend, "-c", "1", "-n", f"c{n}@%h", module=harness.LEDGER, env=ledger.env).start()
                 for n in range(2)]
        try:
            python.signal(signal.SIGTERM)
            harness.eventually(lambda: "Restoring" in python.log(), 30, "the Python worker gives back", every=0.005)
            began = time.monotonic()
            python.wait(30)
            self.assertLess(time.monotonic() - began, 5.0)
            # What Celery 5.2 pops while it stops it neither runs nor gives back: at most one message, none of those that it held.
            held = [tag for tag in client.hkeys("unacked") if not tag.startswith(b"apium.")]
            self.assertLessEqual(len(held), 1, "the Python worker left more behind")
            harness.eventually(lambda: client.llen("celery") == 0 and client.hlen("unacked") == len(held), 60, every=0.2)
            # Their acknowledgement is early: the last ones are still at work.
            slow = {f"slow-{n}" for n in range(40)}
            harness.eventually(lambda: len(ended := ledger.count("end")) >= 40_039 and slow <= ended.keys(), 20, every=0.2)
            # Celery gives back what it has handed to a process whose word of having begun it has not read yet: such a task
            # begins a second time. No task begins twice in C workers.
            by_c = {str(pid) for worker in apium for pid in worker.children()[1]}
            began_in_c = [key for word, key, pid, _ in ledger.lines() if word == "begin" and pid in by_c]
            self.assertEqual(len(began_in_c), len(set(began_in_c)))
            twice = {k: n for k, n in ledger.count("begin").items() if n != 1}
            self.assertTrue(len(twice) <= 2 and set(twice.values()) <= {2}, twice)
        finally:
            app.close()
            for worker in apium:
                worker.stop()
            python.kill_group()


if __name__ == "__main__":
    harness.main()
