"""Workers are killed with -9 at random under a load of chords whose parts and bodies acknowledge late: every body runs, none is
published twice on one server, and none runs again but one that was killed on its way.

    test_chords.py OnRedis      for $CHORDS_KILL_SECONDS (12) seconds
"""
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request

import harness
from celery import chord

SECONDS = float(os.environ.get("CHORDS_KILL_SECONDS", "12"))
WORKERS = 3

servers = harness.Servers()
tearDownModule = servers.stop


class Records:
    """What flows.part and flows.body wrote: {key: [(redelivered, milliseconds)]} of the lines with one word."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def of(self, word):
        found, data = {}, self.path.read_bytes()
        for at in range(0, len(data) - len(data) % 128, 128):
            what, key, redelivered, _, ms = data[at:at + 128].decode().split()
            if what == word:
                found.setdefault(key, []).append((redelivered == "1", int(ms)))
        return found


class Chords:
    def setUp(self):
        self.broker, self.backend = self.urls()
        self.app = None
        self.records = Records(harness.folder("chords") / "records")
        if not isinstance(self, Canvas):
            self.app = harness.app(self.broker, self.backend)
        self.workers = [self.worker().start() for _ in range(WORKERS)]
        self.addCleanup(lambda: [w.kill_group() for w in self.workers])
        self.kills, self.bodies = [], {}

    def worker(self):
        return harness.Worker(self.broker, self.backend, "-c", "2", "-n", f"w{random.getrandbits(32)}@%h",
                              module=harness.FLOWS, env={"FLOWS": str(self.records.path)})

    def part(self, key):
        return self.app.signature("flows.part", args=(key, self.random.randint(1, 15)))

    def body(self, key):
        return self.app.signature("flows.body", args=(key, self.random.randint(1, 15)))

    def send(self, n):
        """A chord; every fourth has another one, and a chain, among its parts. {id of a body: its key}."""
        parts = [self.part(f"p{n}.{i}") for i in range(self.random.randint(1, 8))]
        if n % 4 == 0:
            parts.append(chord([self.part(f"p{n}.x"), self.part(f"p{n}.y")],
                               self.app.signature("flows.part", args=(f"i{n}", 5), immutable=True)))
            parts.append(self.part(f"c{n}.0") | self.app.signature("flows.part", args=(f"c{n}.1", 3), immutable=True))
        self.bodies[self.deliver(chord(parts, self.body(f"b{n}")))] = (f"b{n}", len(parts))

    def deliver(self, flow):
        """Send it; gives the id of its last task."""
        return flow.apply_async().id

    def result(self, task):
        """Its state and what it returned."""
        meta = self.app.backend.get_task_meta(task)
        return meta["status"], meta["result"]

    def kill_and_start(self):
        at = self.random.randrange(WORKERS)
        os.kill(self.workers[at].pid, signal.SIGKILL)
        self.workers[at].popen.wait(10)
        self.kills.append(time.monotonic_ns() // 1_000_000)
        self.workers[at].kill_group()
        self.workers[at] = self.worker().start()

    def test_every_body_runs_whoever_is_killed(self):
        self.random = random.Random(20261128)
        end = time.monotonic() + SECONDS
        stop = threading.Event()

        def produce():
            n = ended = 0
            while not stop.is_set():
                ended = len(self.records.of("end")) if n % 20 == 0 else ended
                self.send(n)
                n += 1
                if len(self.bodies) * 6 > ended + 600:
                    stop.wait(0.2)  # far enough ahead of the workers
        producer = threading.Thread(target=produce)
        producer.start()
        try:
            while time.monotonic() < end:
                time.sleep(self.random.uniform(0.1, 0.6))  # the times of the kills: nothing is waited for
                self.kill_and_start()
        finally:
            stop.set()
            producer.join()
        self.assertGreater(len(self.kills), SECONDS / 4)

        open_ids = set(self.bodies)

        def all_ended():
            for task in list(open_ids):
                state, value = self.result(task)
                if state in ("SUCCESS", "FAILURE"):
                    self.assertEqual((state, value), ("SUCCESS", self.bodies[task][1]), task)
                    open_ids.discard(task)
            return not open_ids
        harness.eventually(all_ended, 150, lambda: f"{len(open_ids)} of {len(self.bodies)} chords hang", every=1)
        self.check()
        for worker in self.workers:
            self.assertEqual(worker.stop(), 0)

    def check(self):
        begins = self.records.of("begin")
        keys = [key for key, _ in self.bodies.values()]
        again = [key for key in keys if len(begins[key]) > 1]
        twice = [key for key in again if sum(not redelivered for redelivered, _ in begins[key]) > 1]
        unkilled = [key for key in again if not self.killed_between(sorted(ms for _, ms in begins[key]))]
        print(f"{len(self.kills)} kills, {len(keys)} chords, {len(again)} bodies began again, {len(twice)} were sent twice, "
              f"{len(unkilled)} began again without a kill")
        if self.one_server:
            self.assertEqual(twice, [], "bodies that were published twice")
            self.assertEqual(unkilled, [], "bodies that began again although nobody was killed")

    def killed_between(self, times):
        return all(any(first - 50 <= kill <= second for kill in self.kills) for first, second in zip(times, times[1:]))


class OnRedis(Chords, unittest.TestCase):
    one_server = True

    def urls(self):
        return servers.redis.url(0), servers.redis.url(0)


class OnRabbit(Chords, unittest.TestCase):
    one_server = False

    def urls(self):
        return servers.rabbitmq.url(), servers.redis.url(1)


class Canvas:
    """Python has no part in the results: the command sends."""

    def setUp(self):
        super().setUp()
        self.app = harness.app("memory://", "cache+memory://")  # makes signatures, no more

    def deliver(self, flow):
        done = subprocess.run([harness.APIUM, "call", "--canvas", "-"], input=json.dumps(flow), text=True, check=True,
                              stdout=subprocess.PIPE, env={**os.environ, **harness.environment(self.broker, self.backend)})
        return done.stdout.strip()


class OnHttp(Canvas, Chords, unittest.TestCase):
    one_server = False

    def urls(self):
        self.web = harness.Web().start()
        self.addCleanup(self.web.kill_group)
        return servers.rabbitmq.url(), self.web.url()

    def result(self, task):
        try:
            with urllib.request.urlopen(self.web.url(f"/celery-task-meta-{task}"), timeout=10) as answer:
                doc = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return "PENDING", None
        return doc["status"], doc["result"]


class OnSqlite(Canvas, Chords, unittest.TestCase):
    one_server = True

    def urls(self):
        self.path = harness.folder("sqlite") / "apium.db"
        return f"sqlite:///{self.path}", f"sqlite:///{self.path}"

    def result(self, task):
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT doc FROM apium_results WHERE task_id = ?", (task,)).fetchone()
        doc = json.loads(row[0]) if row else {"status": "PENDING", "result": None}
        return doc["status"], doc["result"]


if __name__ == "__main__":
    harness.main()
