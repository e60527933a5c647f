"""Results behind HTTP while their server is killed with -9 and starts again, and on a plain server that knows no chords: every result
is there, every body ran once.

    test_http.py Killed      $HTTP_TASKS (2000) tasks and $HTTP_CHORDS (20) chords of 50
"""
import collections
import contextlib
import http.client
import os
import re
import threading
import time
import unittest

import harness
import listener

TASKS = int(os.environ.get("HTTP_TASKS", "2000"))
CHORDS = int(os.environ.get("HTTP_CHORDS", "20"))


class Http:
    conf = {}

    def setUp(self):
        self.redis = harness.Redis().start()
        self.addCleanup(self.redis.stop)
        self.server = self.start_server()
        self.addCleanup(self.server.kill_group)
        self.where = harness.environment(self.redis.url(), self.server.url(), self.conf)
        self.records = harness.folder("http") / "records"
        self.records.touch()

    def work(self, tasks, chords, parts, meanwhile):
        harness.send_many(self.where, "flows.part", "t", tasks, 1)
        bodies = harness.send_chords(self.where, "b", chords, parts)
        worker = harness.Worker(self.redis.url(), self.server.url(), "-c", "2", module=harness.FLOWS, conf=self.conf,
                                env={"FLOWS": str(self.records)}).start()
        self.addCleanup(worker.kill_group)
        start = time.monotonic()
        meanwhile()
        ids = [f"t-{n}" for n in range(tasks)] + bodies
        left = set(ids)

        def all_there():
            left.difference_update(i for i, s in harness.states(self.where, left).items() if s == "SUCCESS")
            return not left
        harness.eventually(all_there, 120, lambda: f"{len(left)} of {len(ids)} results are missing: {list(left)[:3]}", every=0.2)
        print(f"{tasks} tasks and {chords} chords of {parts}: {time.monotonic() - start:.1f} s")
        begins = collections.Counter(line.split()[1] for line in self.records.read_text().splitlines() if line.startswith("begin "))
        self.assertEqual({begins[f"b-{n}"] for n in range(chords)}, {1}, "every body ran once")
        self.assertEqual({begins[f"t-{n}"] for n in range(tasks)}, {1}, "every task ran once")
        self.assertEqual(worker.stop(), 0)
        return worker.log()


class Killed(Http, unittest.TestCase):
    def start_server(self):
        return harness.Web().start()

    def test_every_result_is_there_although_the_server_was_killed_five_times(self):
        def kills():
            for n in range(1, 6):
                ended = lambda: self.records.read_text().count("end ")  # noqa: E731
                harness.eventually(lambda: ended() > (TASKS + CHORDS * 50) * n // 8, 60)
                self.server.kill()
                self.server.start()
        log = self.work(TASKS, CHORDS, 50, kills)
        self.assertIn("Trying again in", log)


class Plain(Http, unittest.TestCase):
    conf = {"result_chord_retry_interval": 0.2}

    def start_server(self):
        return harness.Nginx().start()

    def test_a_server_without_chords_gets_them_by_looking(self):
        self.work(TASKS // 4, 4, 20, lambda: None)
        self.assertIn("celery-task-meta-t-0", os.listdir(self.server.folder / "store" / "results"))


class Gate(listener.Listener):
    """Stands before a server, and looks at each request: one that `wanted` takes for the right one ends the worker, before the server has
    it, or when the server has answered, and the worker has not."""

    def __init__(self, port, wanted, when, end, cuts=True):
        self.to, self.wanted, self.when, self.end, self.cuts = port, wanted, when, end, cuts
        self.lock, self.done = threading.Lock(), threading.Event()
        super().__init__()

    def serve(self, peer):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.to, timeout=60)) as server:
            for method, path, headers, body in listener.requests(peer):
                if self.falls(method, path, body, "before"):
                    break
                server.request(method, path, body or None, {"Content-Type": headers.get("Content-Type", "")})
                answer = server.getresponse()
                text = answer.read()
                if self.falls(method, path, body, "after"):
                    break
                peer.sendall(f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)

    def falls(self, method, path, body, when):
        with self.lock:
            if self.done.is_set() or when != self.when or not self.wanted(method, path, body.decode()):
                return False
            self.end()
            self.done.set()
            return self.cuts


class Claims(unittest.TestCase):
    """The worker that completes a header dies between each two steps: [arrive] [parts] [claim] publish [take] acknowledge. RabbitMQ gives its
    task to the next worker at once."""

    @classmethod
    def setUpClass(cls):
        cls.rabbit = harness.RabbitMQ().start()
        cls.addClassCleanup(cls.rabbit.stop)
        cls.web = harness.Web().start()
        cls.addClassCleanup(cls.web.kill_group)

    def die(self, name, wanted, when, sent):
        records = harness.folder("claims") / "records"
        records.touch()
        worker = None
        gate = Gate(self.web.port, wanted, when, lambda: worker.kill_group())
        self.addCleanup(gate.sock.close)
        where = harness.environment(self.rabbit.url(), self.web.url())
        bodies = harness.send_chords(where, name, 1, 3)
        make = lambda url: harness.Worker(self.rabbit.url(), url, "-c", "1", module=harness.FLOWS, env={"FLOWS": str(records)})  # noqa: E731
        worker = make(f"http://127.0.0.1:{gate.port}/")
        harness.Process.start(worker)
        self.addCleanup(worker.kill_group)
        died = gate.done.wait(30)
        worker.kill_group()
        self.assertTrue(died, f"{name}: nobody died\n{worker.log()[-2000:]}")
        second = make(self.web.url()).start()
        self.addCleanup(second.kill_group)
        harness.eventually(lambda: harness.states(where, bodies)[bodies[0]] == "SUCCESS", 30, lambda: f"{name}: {second.log()[-3000:]}", every=0.1)
        self.assertEqual(second.stop(), 0)  # with everything that it had to do
        begins = [line.split() for line in records.read_text().splitlines() if line.split()[:2] == ["begin", f"{name}-0"]]
        # One that begins again because its worker died is marked as such.
        self.assertLessEqual(sum(redelivered == "0" for _, _, redelivered, *_ in begins), sent, f"{name}: {begins}")
        return len(begins)

    def test_a_worker_leaves_a_header_that_another_has_claimed(self):
        group = []

        def ask(method, what, body=None):
            web = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=10)
            with contextlib.closing(web):
                web.request(method, f"/celery-taskset-meta-{group[0]}/{what}", body)
                return web.getresponse().status

        def wanted(method, path, body):
            group.extend(re.findall(r'\["claim", "([^"]+)"', body))
            return bool(group)
        answers = []
        gate = Gate(self.web.port, wanted, "before", lambda: answers.append(ask("PUT", "claim", '"another"')), cuts=False)
        self.addCleanup(gate.sock.close)
        records = harness.folder("claims") / "records"
        records.touch()
        where = harness.environment(self.rabbit.url(), self.web.url())
        bodies = harness.send_chords(where, "left", 1, 3)
        worker = harness.Worker(self.rabbit.url(), f"http://127.0.0.1:{gate.port}/", "-c", "1", module=harness.FLOWS, level="DEBUG",
                                env={"FLOWS": str(records)}).start()
        self.addCleanup(worker.kill_group)
        harness.eventually(lambda: "was completed by another of its parts" in worker.log(), 30, worker.log)
        self.assertEqual(worker.stop(), 0)
        self.assertEqual(answers, [204])
        self.assertEqual(harness.states(where, bodies)[bodies[0]], "PENDING")
        self.assertNotIn("begin left-0 ", records.read_text())
        self.assertEqual(ask("GET", "parts"), 200, "they are the other's to gather")
        self.assertEqual(ask("DELETE", "parts"), 204)

    def test_the_body_is_never_lost_and_sent_again_only_if_it_had_been_sent(self):
        unit = lambda op: lambda method, path, body: path == "/units" and f'["{op}"' in body  # noqa: E731
        parts = lambda method, path, body: method == "GET" and path.endswith("/parts")  # noqa: E731
        arrived = []

        def last(method, path, body):
            arrived.extend(body.split('["arrive"')[1:] if path == "/units" else [])
            return len(arrived) >= 3
        steps = [("arrive", last), ("parts", parts), ("claim", unit("claim")), ("take", unit("take"))]
        seen = {}
        for name, wanted in steps:
            for when in ("before", "after"):
                arrived.clear()
                # Published, and then dead before it is known to be taken: the message may be there twice, under one id.
                sent = 2 if (name, when) == ("take", "before") else 1
                with self.subTest(name, when=when):
                    seen[f"{when} {name}"] = self.die(f"{name}-{when}", wanted, when, sent)
        print(seen)


if __name__ == "__main__":
    harness.main()
