"""Results behind HTTP while their server is killed with -9 and starts again, and on a plain server that knows no chords: every result
is there, every body ran once.

    test_http.py Killed      $HTTP_TASKS (2000) tasks and $HTTP_CHORDS (20) chords of 50
"""
import collections
import os
import time
import unittest

import harness

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


if __name__ == "__main__":
    harness.main()
