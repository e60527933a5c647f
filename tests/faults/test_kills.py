"""Tasks while a pool process, the fork server and the worker are killed with -9 over and over, on every broker, in every
way of acknowledging.

ledger.work acks early, ledger.late acks late, ledger.sure acks late and is given back when its process is lost.
"""
import os
import random
import signal
import time
import unittest

import harness

COUNT = 1000   # of each kind
TASK_MS = 8
KINDS = {"work": "ledger.work", "late": "ledger.late", "sure": "ledger.sure"}

servers = harness.Servers()
tearDownModule = servers.stop


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


class Kills:
    def setUp(self):
        self.broker, self.backend = self.urls()
        self.where = harness.environment(self.broker, self.backend)
        self.ledger = harness.Ledger()
        self.random = random.Random(20260821)
        self.worker = harness.Worker(self.broker, self.backend, "-c", "4", module=harness.LEDGER,
                                     env=self.ledger.env)
        for kind, task in KINDS.items():
            harness.send_many(self.where, task, f"{self.prefix()}-{kind}", COUNT, TASK_MS)

    def tearDown(self):
        if self.worker.popen:
            self.worker.kill_group()

    def prefix(self):
        return self._testMethodName[:20].replace("_", "-")

    def ids(self, kind):
        return [f"{self.prefix()}-{kind}-{n}" for n in range(COUNT)]

    def ended(self):
        return len(self.ledger.count("end"))

    def settled(self):
        """Has every task a final state?"""
        every = [task for kind in KINDS for task in self.ids(kind)]
        return all(state.split()[0] in ("SUCCESS", "FAILURE") for state in harness.states(self.where, every).values())

    def test_a_pool_process_and_the_fork_server_are_killed(self):
        self.worker.start()
        kills = {"pool": 0, "server": 0}
        deadline = time.monotonic() + 60
        while self.ended() < 2.8 * COUNT and time.monotonic() < deadline:
            time.sleep(self.random.uniform(0.03, 0.12))  # the times of the kills: nothing is waited for
            server, pool = self.worker.children()
            if kills["pool"] % 8 == 7 and server:
                kills["server"] += kill(server)
            if pool:
                kills["pool"] += kill(self.random.choice(pool))
        self.assertGreater(kills["pool"], 10)
        self.assertGreater(kills["server"], 1)
        harness.eventually(self.settled, 60, "every task has a final state", every=0.3)
        self.assertTrue(self.worker.alive(), self.worker.log()[-2000:])

        begun, ended = self.ledger.count("begin"), self.ledger.count("end")
        states = harness.states(self.where, [task for kind in KINDS for task in self.ids(kind)])
        for task in self.ids("sure"):
            self.assertEqual(states[task], "SUCCESS", task)
            self.assertIn(task, ended)
        unseen = []
        for kind in ("late", "work"):
            for task in self.ids(kind):
                if states[task] != "SUCCESS":
                    self.assertEqual(states[task], "FAILURE WorkerLostError", task)
                    unseen += [task] if task not in begun else []
                else:
                    self.assertIn(task, ended)
                self.assertLessEqual(begun.get(task, 0), 1, f"{task} started twice")
        # A few microseconds lie between the pool's mark that a task begins and its first line in the ledger: a kill may come there.
        self.assertLessEqual(len(unseen), 2, unseen)
        lost = sum(state != "SUCCESS" for state in states.values())
        self.assertGreater(lost, 0, "no kill hit a task")
        self.assertEqual(self.worker.stop(), 0)

    def test_the_worker_is_killed(self):
        killed_at = []
        for _ in range(6):
            self.worker.start()
            goal = self.ended() + 200
            harness.eventually(lambda: self.ended() >= goal, 20, "work goes on", every=0.005)
            self.worker.kill()
            harness.eventually(lambda: not self.alive_children(), 5, "its processes die with it")
            killed_at.append(time.monotonic_ns() // 1_000_000)  # when the last of it is gone
        self.worker.start()
        missing = set()

        def all_over():
            ended = self.ledger.count("end")
            late = [t for kind in ("late", "sure") for t in self.ids(kind) if t not in ended]
            missing.clear()
            missing.update(t for t in self.ids("work") if t not in ended)
            begun = self.ledger.count("begin")
            return not late and all(t in begun for t in missing)
        harness.eventually(all_over, 125, "what a dead worker held is back within two minutes", every=0.5)

        harness.eventually(lambda: all(s == "SUCCESS" for s in harness.states(
            self.where, self.ids("late") + self.ids("sure")).values()), 10, "every late one succeeds", every=0.3)
        self.assertLessEqual(len(missing), 4 * len(killed_at), "more early ones were lost than can have been running")
        self.only_unacked_began_again(killed_at)
        self.nothing_is_left()
        self.assertEqual(self.worker.stop(), 0)

    def alive_children(self):
        """Pool processes of the ledger that still live, whoever their parent is."""
        pids = {int(pid) for _, _, pid, _ in self.ledger.lines()[-50:]}
        return [pid for pid in pids if harness.lives(pid)]

    def only_unacked_began_again(self, killed_at):
        """An early task that began twice began right before a kill: its ack was not out yet."""
        begins = {}
        for word, key, _, at in self.ledger.lines():
            if word == "begin" and "-work-" in key:
                begins.setdefault(key, []).append(int(at))
        for key, times in begins.items():
            for first in times[:-1]:
                self.assertTrue(any(0 <= kill_ms - first < 300 for kill_ms in killed_at),
                                f"{key} began at {times}, kills were at {killed_at}")
        again = sum(len(times) - 1 for times in begins.values())
        self.assertLessEqual(again, 16 * len(killed_at))

    def nothing_is_left(self):
        pass


class OnRedis(Kills, unittest.TestCase):
    def urls(self):
        return servers.redis.url(0), servers.redis.url(1)

    def nothing_is_left(self):
        client = servers.redis.client(0)
        harness.eventually(lambda: client.hlen("unacked") == 0 and client.zcard("unacked_index") == 0, 120, every=0.2)


class OnRabbit(Kills, unittest.TestCase):
    def urls(self):
        return servers.rabbitmq.url(), servers.redis.url(2)


class OnSqlite(Kills, unittest.TestCase):
    def urls(self):
        path = harness.folder("sqlite") / "apium.db"
        return f"sqlite:///{path}", f"sqlite:///{path}"


if __name__ == "__main__":
    harness.main()
