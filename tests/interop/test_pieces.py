"""Chains in pieces (task_chain_piece_size): their messages stay small, and all else is as if they had travelled whole."""
import json
import time
import unittest

import harness
from celery import chain, group

servers = harness.Servers()
tearDownModule = servers.stop
TIMEOUT = 30
PIECE = {"task_chain_piece_size": 5}


def payload(app, queue):
    """The messages that wait in a queue of Redis: bodies' bytes."""
    with app.connection_for_read() as connection:
        return [len(json.loads(raw)["body"]) for raw in connection.default_channel.client.lrange(queue, 0, -1)]


class Pieces:
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.broker, cls.backend = cls.urls()
        cls.app = harness.app(cls.broker, cls.backend)
        cls.worker = harness.Worker(cls.broker, cls.backend, "-c", "2", conf=PIECE).start()

    @classmethod
    def tearDownClass(cls):
        code, log = cls.worker.stop(), cls.worker.log()
        assert code == 0 and "could not be delivered" not in log, log[-4000:]

    def sig(self, name, *args, **options):
        return self.app.signature("tasks." + name, args=args, options=options)

    def adding(self, n):
        return [self.sig("add", 1, 0), *(self.sig("add", 1) for _ in range(n - 1))]

    def value(self, result):
        """Celery's own get() asks before its subscription is confirmed."""
        harness.eventually(result.ready, TIMEOUT, "the result is there")
        return result.get(timeout=TIMEOUT)

    def store(self):
        """A client of the Redis that has the results."""
        return self.app.backend.client

    def pieces(self):
        return {key.decode() for key in self.store().keys("celery-taskset-meta-*")}

    def test_each_step_gets_what_the_one_before_gave(self):
        for n in (2, 10, 11, 12, 16, 57):
            with self.subTest(steps=n):
                result = chain(self.adding(n)).apply_async()
                self.assertEqual(self.value(result), n)
                seen, node = 0, result
                while node:
                    self.assertEqual(self.value(self.app.AsyncResult(node.id)), n - seen)
                    seen, node = seen + 1, node.parent
                self.assertEqual(seen, n)

    def test_a_step_that_fails_is_the_failure_of_all_behind_it(self):
        for at in (0, 4, 5, 9, 23, 39):
            steps = self.adding(40)
            steps[at] = self.sig("fail", "here").set(immutable=True)
            result = chain(steps).apply_async()
            nodes, node = [], result
            while node:
                nodes.append(node)
                node = node.parent
            nodes.reverse()
            with self.subTest(failing=at):
                for i, node in enumerate(nodes):
                    if i < at:
                        self.assertEqual(self.value(node), i + 1)
                    else:
                        with self.assertRaisesRegex(ValueError, "here", msg=f"step {i}"):
                            node.get(timeout=TIMEOUT, propagate=True, disable_sync_subtasks=False)

    def test_groups_within_become_chords_with_all_that_follows(self):
        steps = self.adding(12) + [group(self.sig("add", 1), self.sig("add", 2))] + [self.sig("xsum")] + self.adding(20)[1:]
        self.assertEqual(self.value(chain(steps).apply_async()), 13 + 14 + 19)

    def test_a_chain_is_a_part_of_a_chord(self):
        body = (group(chain(self.adding(30)), chain(self.adding(13)), self.sig("add", 1, 1)) | self.sig("xsum"))
        self.assertEqual(self.value(body.apply_async()), 45)

    def test_links_and_immutable_steps_are_kept(self):
        steps = self.adding(20)
        steps[17] = self.sig("add", 100, 1).set(immutable=True)
        result = chain(steps).apply_async(link=self.sig("add", 1000))
        self.assertEqual(self.value(result), 103)
        linked = harness.eventually(lambda: self.app.AsyncResult(result.id).children, TIMEOUT, "the link was sent")
        self.assertEqual(self.value(linked[0]), 1103)

    def test_a_c_program_cuts_before_it_sends(self):
        text = json.dumps({"task": "celery.chain", "subtask_type": "chain", "args": [], "options": {}, "immutable": False, "kwargs": {
            "tasks": [{"task": "tasks.add", "args": [1, 0] if i == 0 else [1], "kwargs": {}, "options": {}, "subtask_type": None,
                       "immutable": False} for i in range(33)]}})
        done = harness.apium("call", "--canvas", "-", "--wait", broker=self.broker, backend=self.backend, stdin=text,
                             env={"APIUM_TASK_CHAIN_PIECE_SIZE": "5"})
        self.assertEqual(done.stdout.strip(), "33", done.stderr)


class OnRedis(Pieces, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.redis.url(0), servers.redis.url(0)

    def test_messages_stay_small(self):
        """The chain waits for a worker; what the first step leaves has a dozen steps at most, however many there are."""
        other = servers.redis.url(5)
        app = harness.app(other, other)
        sig = lambda *args: app.signature("tasks.add", args=args)
        chain([sig(1, 0)] + [sig(1)] * 499).apply_async()
        before = payload(app, "celery")[0]
        worker = harness.Worker(other, other, "-c", "1", "--prefetch-multiplier", "1", conf=PIECE, level="DEBUG").start()
        self.addCleanup(worker.kill_group)
        seen = []
        def watch():
            seen.extend(payload(app, "celery"))
            return len(app.backend.client.keys("celery-task-meta-*")) == 500
        harness.eventually(watch, TIMEOUT, "all steps ran", every=0.001)
        self.assertGreater(before, 100_000)
        after = [size for size in seen if size != before]
        self.assertLess(max(after, default=0), before / 25)

    def test_a_piece_that_is_gone_is_a_failure_that_says_so(self):
        steps = self.adding(30)
        steps[1] = self.sig("sleep", 1).set(immutable=True)
        known = self.pieces()
        result = chain(steps).apply_async()
        harness.eventually(lambda: self.pieces() - known, TIMEOUT, "the pieces are stored")
        for key in self.pieces() - known:
            self.store().delete(key)
        with self.assertRaisesRegex(RuntimeError, "cannot go on with the chain: piece .* cannot be had from the result store: it is not there"):
            self.value(result)
        self.assertIn("cannot be had from the result store: it is not there", self.worker.log())


class OnRabbitMQAndRedis(Pieces, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.rabbitmq.url(), servers.redis.url(1)


class FromC:
    """Chains that the command sends."""

    def call(self, steps, fails=None):
        tasks = [{"task": "tasks.add", "args": [1, 0] if i == 0 else [1], "kwargs": {}, "options": {}, "subtask_type": None,
                  "immutable": False} for i in range(steps)]
        if fails is not None:
            tasks[fails] = {**tasks[fails], "task": "tasks.fail", "args": ["here"], "immutable": True}
        text = json.dumps({"task": "celery.chain", "subtask_type": "chain", "args": [], "options": {}, "immutable": False,
                           "kwargs": {"tasks": tasks}})
        return harness.apium("call", "--canvas", "-", broker=self.broker, backend=self.backend, stdin=text, check=True).stdout.split()[-1]

    def result(self, one):
        done = harness.apium("result", one, "--json", "--no-wait", broker=self.broker, backend=self.backend)
        return json.loads(done.stdout or '{"status": "PENDING"}')

    def ends(self, one):
        """Its document, when it has ended."""
        return harness.eventually(lambda: (found := self.result(one))["status"] in ("SUCCESS", "FAILURE") and found, 60, "the last step has ended")

    def worker(self):
        return harness.Worker(self.broker, self.backend, "-c", "2", conf={**PIECE, "task_acks_late": True}).start()


class OnSqlite(FromC, unittest.TestCase):
    """One file is broker and store; what leaves for it is whole or not at all."""

    def setUp(self):
        self.broker = self.backend = f"sqlite:///{harness.folder('pieces')}/apium.db"

    def test_workers_that_are_killed_lose_no_step(self):
        chains = [self.call(300) for _ in range(6)]
        kills, running = 0, self.worker()
        self.addCleanup(lambda: running.kill_group())
        while kills < 12 and any(self.result(one)["status"] != "SUCCESS" for one in chains):
            running.kill_group()
            kills += 1
            running = self.worker()
        self.assertEqual([self.ends(one)["result"] for one in chains], [300] * 6)
        self.assertGreater(kills, 1)


class OnHttp(FromC, unittest.TestCase):
    """Pieces are saved groups, so any store that keeps those will do."""

    def test_chains_end_as_elsewhere(self):
        web = harness.Web().start()
        self.addCleanup(web.kill_group)
        self.broker, self.backend = f"sqlite:///{harness.folder('pieces')}/apium.db", web.url()
        worker = self.worker()
        self.addCleanup(worker.kill_group)
        self.assertEqual(self.ends(self.call(63))["result"], 63)
        failed = self.ends(self.call(63, fails=30))
        self.assertEqual((failed["status"], failed["result"]["exc_message"]), ("FAILURE", ["here"]))


if __name__ == "__main__":
    harness.main()
