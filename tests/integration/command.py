"""The command: its words, its exit codes, and what it does around a worker. Over SQLite, so no server is needed."""
import contextlib
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import unittest

import harness


class Command(unittest.TestCase):
    def setUp(self):
        self.folder = harness.folder("command")
        self.url = f"sqlite:///{self.folder}/apium.db"
        self.ledger = harness.Ledger()
        self.workers = []

    def tearDown(self):
        for worker in self.workers:
            if worker.popen:
                worker.kill_group()

    def run_it(self, *args, **options):
        options.setdefault("broker", self.url)
        options.setdefault("backend", self.url)
        return harness.apium(*args, **options)

    def worker(self, *options, module=harness.LEDGER, **more):
        made = harness.Worker(self.url, self.url, *options, module=module, env=self.ledger.env, **more)
        self.workers.append(made)
        return made

    def fails(self, code, words, *args, **options):
        done = self.run_it(*args, **options)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, words)
        self.assertNotIn("secret", done.stderr + done.stdout)
        return done


class Words(Command):
    def test_help_and_version(self):
        self.assertRegex(self.run_it("--version").stdout, r"^apium \d+\.\d+")
        self.assertIn("Commands:", self.run_it("--help").stdout)
        self.assertIn("--countdown", self.run_it("call", "--help").stdout)
        self.assertIn("--countdown", self.run_it("help", "call").stdout)
        self.assertEqual(self.run_it().returncode, 2)

    def test_mistakes_are_named_with_what_was_meant(self):
        self.fails(2, "No such command 'wroker'. Did you mean 'worker'", "wroker")
        self.fails(2, r"No such option: --quue \(did you mean --queue\?\)", "call", "x", "--quue", "a")
        self.fails(2, "Missing argument 'NAME'", "call")
        self.fails(2, "unexpected extra argument", "call", "a", "b")
        self.fails(2, "'-c' / '--concurrency': 0 is not in the range", "-A", harness.LEDGER, "worker", "-c", "0")
        self.fails(2, "'-l' / '--loglevel': 'LOUD' is not one of DEBUG", "-A", harness.LEDGER, "worker", "-l", "LOUD")
        self.fails(2, "'-a' / '--args'", "call", "x", "-a", "{bad")
        self.fails(2, "not a JSON object", "call", "x", "-k", "[]")
        self.fails(2, "--eta", "call", "x", "--eta", "tomorrow")
        self.fails(2, "no tasks to run: name a module with -A", "worker")

    def test_modules_that_cannot_be_used_are_named(self):
        self.fails(78, "nowhere.so", "-A", "./nowhere.so", "call", "x")
        text = self.folder / "text.so"
        text.write_text("not a library")
        self.fails(78, "text.so", "-A", text, "call", "x")
        self.fails(78, "libm.so.6", "-A", next(iter(pathlib.Path("/lib").glob("*/libm.so.6"))), "call", "x")
        worker = self.worker(module="./nowhere.so")
        with self.assertRaisesRegex(AssertionError, "nowhere.so"):
            worker.start()

    def test_settings_that_cannot_be_used_are_named_with_their_source(self):
        file = self.folder / "apium.yaml"
        file.write_text("task_ack_late: true\n")
        self.fails(78, "task_acks_late", "--config", file, "report")
        file.write_text("worker_concurrency: [1\n")
        self.fails(78, "apium.yaml", "--config", file, "report")
        self.fails(78, "missing.yaml", "--config", self.folder / "missing.yaml", "report")
        self.fails(78, "(?i)worker_concurrency", "report", env={"APIUM_WORKER_CONCURRENCY": "many"})
        self.fails(78, r"task_ack_late in the environment \(did you mean task_acks_late", "report", env={"APIUM_TASK_ACK_LATE": "1"})
        self.fails(78, "task_ack_late on the command line", "-A", harness.TASKS, "worker", "--", "task_ack_late=1")

    def test_the_strongest_source_wins(self):
        file = self.folder / "apium.yaml"
        file.write_text("task_default_queue: from-file\ntask_time_limit: 9\nworker_concurrency: 3\n")

        def values(*args, **env):
            out = self.run_it("--config", file, *args, "report", "--json", "--all", env=env, check=True).stdout
            return {row["name"]: (row["value"], row["source"]) for row in map(json.loads, out.splitlines())}
        got = values(APIUM_TASK_DEFAULT_QUEUE="from-env")
        self.assertEqual(got["task_default_queue"], ("from-env", "environment"))
        self.assertEqual(got["worker_concurrency"], (3, "file"))
        self.assertEqual(got["worker_prefetch_multiplier"][1], "default")

    def test_urls_that_cannot_be_used_are_named_without_their_password(self):
        for url, code, words in (("redis://u:secret@127.0.0.1:1/0", 69, "127.0.0.1"), ("nosuch://u:secret@host/", 78, "nosuch"),
                                 ("redis://:secret@localhost/abc", 78, "abc|database"), ("amqp://u:secret@127.0.0.1:1//", 69, "127.0.0.1"),
                                 ("sqlite:////nowhere/at/all/x.db", None, "nowhere/at/all")):
            with self.subTest(url):
                done = self.run_it("call", "x", broker=url, backend="disabled://", timeout=60)
                self.assertNotEqual(done.returncode, 0)
                if code:
                    self.assertEqual(done.returncode, code, done.stderr)
                self.assertRegex(done.stderr, words)
                self.assertNotIn("secret", done.stderr)

    def test_a_wait_that_ends_while_the_backend_is_away_says_so(self):
        done = self.run_it("result", "x", "--timeout", "1", backend="redis://127.0.0.1:1/0")
        self.assertEqual(done.returncode, 75, done.stderr)
        self.assertRegex(done.stderr, "not finished within 1000 ms, and the result backend is out of reach: .*127.0.0.1:1/0: connection refused")

    def test_a_file_that_is_no_database_is_refused(self):
        bad = self.folder / "bad.db"
        bad.write_bytes(b"this is no database at all" * 1000)
        done = self.run_it("call", "x", broker=f"sqlite:///{bad}", backend=f"sqlite:///{bad}")
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "bad.db")
        self.assertEqual(bad.read_bytes()[:26], b"this is no database at all")

    def test_completion_knows_commands_and_options(self):
        script = harness.ROOT / "completions" / "apium"

        def complete(*words):
            line = " ".join(words)
            code = (f"source {script}; COMP_WORDS=({harness.APIUM} {line}); [ {len(words)} = 0 ] && COMP_WORDS+=('');"
                    f"COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _apium; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
            return subprocess.run(["bash", "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        self.assertEqual(complete("wo"), ["worker"])
        self.assertIn("--countdown", complete("call", "--co"))
        self.assertEqual(complete("worker", "-P", "thr"), ["threads"])
        self.assertEqual(complete("canvas", "sh"), ["show"])
        self.assertEqual(complete("canvas", "show", "/etc/passw"), complete("call", "--canvas", "/etc/passw"))
        self.assertIn("/etc/passwd", complete("call", "--canvas", "/etc/passw"))


class Queues(Command):
    def call(self, *args):
        return self.run_it("call", "ledger.work", "-a", '["k"]', *args, check=True).stdout.strip()

    def test_depths_are_listed_and_purged(self):
        for _ in range(3):
            self.call()
        self.call("--queue", "other")
        rows = {r["queue"]: r for r in map(json.loads, self.run_it("list", "-j", check=True).stdout.splitlines())}
        self.assertEqual(rows["celery"]["ready"], 3)
        self.assertEqual(rows["other"]["ready"], 1)
        self.assertRegex(self.run_it("list").stdout, r"Queue +Ready +Unacked +Parked +Dead")
        self.assertRegex(self.run_it("list", "bindings").stdout, r"(?m)^celery +celery +celery$")
        self.assertEqual(self.run_it("purge", "-f").stdout, "Purged 3 messages from 1 known task queue.\n")
        self.assertEqual(self.run_it("purge", "-f").stdout, "No messages purged from 1 queue.\n")
        self.assertEqual(self.run_it("purge", "-f", "-Q", "celery,other").stdout, "Purged 1 message from 2 known task queues.\n")
        asked = self.run_it("purge")
        self.assertEqual(asked.returncode, 1)
        self.assertIn("Aborted!", asked.stderr)

    def test_a_result_is_printed_and_waited_for(self):
        worker = self.worker("-c", "1").start()
        done = self.run_it("call", "ledger.work", "-a", '["k"]', "--wait", "--timeout", "20", check=True)
        self.assertRegex(done.stdout, r"^\d+\n$")
        task_id = self.call()
        self.assertRegex(self.run_it("result", task_id, "--timeout", "20", check=True).stdout, r"^\d+\n$")
        self.assertEqual(self.run_it("result", task_id, "--state", check=True).stdout, "SUCCESS\n")
        wrong = self.run_it("call", "ledger.work", "-a", "[1]", "--wait", "--timeout", "20")
        self.assertEqual(wrong.returncode, 1)
        self.assertRegex(wrong.stderr, "TypeError: .*key")
        self.fails(75, "not finished", "result", "no-such-task", "--timeout", "0.1")
        self.assertEqual(worker.stop(), 0)

    def test_refused_messages_are_listed_with_their_reason(self):
        worker = self.worker("-c", "1").start()
        self.run_it("call", "no.such.task", "--wait", "--timeout", "20")
        self.assertRegex(self.run_it("list", "dead").stdout, r"celery: .*no\.such\.task")
        rows = [json.loads(line) for line in self.run_it("list", "dead", "-j").stdout.splitlines()]
        self.assertEqual(len(rows), 1)
        self.assertEqual(rows[0]["message"]["headers"]["task"], "no.such.task")
        self.assertEqual(worker.stop(), 0)


class Life(Command):
    def test_term_lets_the_running_task_finish_and_gives_back_the_rest(self):
        worker = self.worker("-c", "1").start()
        for n in range(4):
            self.run_it("call", "ledger.work", "-a", f'["{n}", 700]', check=True)
        harness.eventually(lambda: self.ledger.count("begin"), 10)
        self.assertEqual(worker.stop(), 0)
        self.assertEqual(self.ledger.count("begin"), self.ledger.count("end"))
        left = json.loads(self.run_it("list", "-j").stdout.splitlines()[0])
        self.assertEqual(left["ready"] + len(self.ledger.count("end")), 4)
        self.assertEqual(left["unacked"], 0)
        self.assertIn("worker: Warm shutdown (MainProcess)", worker.log())

    def test_int_twice_is_a_cold_stop_with_1(self):
        worker = self.worker("-c", "1").start()
        self.run_it("call", "ledger.sure", "-a", '["long", 60000]', check=True)
        harness.eventually(lambda: self.ledger.count("begin"), 10)
        worker.signal(signal.SIGINT)
        harness.eventually(lambda: "Warm shutdown" in worker.log(), 10)
        worker.signal(signal.SIGINT)
        self.assertEqual(worker.wait(15), 1)
        self.assertIn("worker: Cold shutdown (MainProcess)", worker.log())
        self.assertEqual(json.loads(self.run_it("list", "-j").stdout.splitlines()[0])["ready"], 1)

    def test_quit_gives_back_what_may_run_again(self):
        worker = self.worker("-c", "1").start()
        self.run_it("call", "ledger.sure", "-a", '["long", 60000]', check=True)
        harness.eventually(lambda: self.ledger.count("begin"), 10)
        worker.signal(signal.SIGQUIT)
        worker.wait(15)
        again = self.worker("-c", "1", "-n", "again@%h").start()
        harness.eventually(lambda: self.ledger.count("begin").get("long") == 2, 10)
        again.signal(signal.SIGQUIT)
        again.wait(15)

    def test_hup_starts_the_same_worker_again(self):
        pidfile = self.folder / "w.pid"
        worker = self.worker("-c", "1", "--pidfile", str(pidfile)).start()
        worker.signal(signal.SIGHUP)
        harness.eventually(lambda: worker.log().count(" ready.") == 2, 20, "ready again")
        self.assertEqual(int(pidfile.read_text()), worker.pid)
        self.run_it("call", "ledger.work", "-a", '["k"]', "--wait", "--timeout", "20", check=True)
        self.assertEqual(worker.stop(), 0)
        self.assertFalse(pidfile.exists())

    def test_a_pidfile_in_use_is_refused_and_a_stale_one_replaced(self):
        pidfile = self.folder / "w.pid"
        pidfile.write_text("999999999\n")
        worker = self.worker("-c", "1", "--pidfile", str(pidfile)).start()
        self.assertEqual(int(pidfile.read_text()), worker.pid)
        self.fails(73, rf"Pidfile \({re.escape(str(pidfile))}\) already exists.*\nSeems we're already running\? \(pid: {worker.pid}\)",
                   "-A", harness.LEDGER, "worker", "-c", "1", "--pidfile", pidfile)
        self.assertEqual(worker.stop(), 0)

    def test_detach_returns_when_the_worker_is_on_its_way(self):
        pidfile, logfile = self.folder / "d.pid", self.folder / "%n.log"
        done = self.run_it("-A", harness.LEDGER, "worker", "-n", "bg@%h", "-l", "INFO", "-c", "1", "-D", "--pidfile", pidfile, "-f",
                           logfile, env=self.ledger.env)
        self.assertEqual(done.returncode, 0, done.stderr)
        pid = int(pidfile.read_text())
        try:
            log = self.folder / "bg.log"
            harness.eventually(lambda: log.exists() and " ready." in log.read_text(), 10)
            self.run_it("call", "ledger.work", "-a", '["k"]', "--wait", "--timeout", "20", check=True)
            self.assertNotEqual(os.getsid(pid), os.getsid(0))
        finally:
            os.kill(pid, signal.SIGTERM)
        harness.eventually(lambda: not pidfile.exists(), 10)
        refused = self.run_it("-A", "./nowhere.so", "worker", "-D", "-P", "solo")
        self.assertEqual(refused.returncode, 78)
        self.assertIn("nowhere.so", refused.stderr)

    def test_the_log_as_key_and_value(self):
        worker = self.worker("-c", "1", "--log-format", "kv").start()
        self.run_it("call", "ledger.work", "-a", '["k"]', "--wait", "--timeout", "20", check=True)
        self.assertEqual(worker.stop(), 0)
        self.assertRegex(worker.log(), r"(?m)^ts=\S+ level=info .*event=task\.succeeded .*task=ledger\.work")

    def test_every_pool_runs_tasks(self):
        for pool in ("prefork", "processes", "threads", "solo"):
            with self.subTest(pool):
                worker = self.worker("-c", "1", "-P", pool).start()
                self.run_it("call", "ledger.work", "-a", f'["{pool}"]', "--wait", "--timeout", "20", check=True)
                self.assertEqual(worker.stop(), 0)

    def test_a_full_disk_is_an_error_and_not_the_end(self):
        """The file may not grow: what was to be stored is reported, and goes on when there is room again."""
        worker = self.worker("-c", "1").start()
        database = self.folder / "apium.db"
        with contextlib.closing(sqlite3.connect(database)) as held:
            pages = held.execute("PRAGMA page_count").fetchone()[0]
        big = "x" * 2_000_000
        limited = subprocess.run(
            ["bash", "-c", f"ulimit -f {pages * 4 + 200}; trap '' XFSZ; exec \"$@\"", "-", harness.APIUM, "call", "ledger.work", "-k",
             json.dumps({"key": big[:100_000]}), "-a", "[]", "--headers", json.dumps({"pad": big[:100_000]})],
            env={**os.environ, **harness.environment(self.url, self.url)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertNotEqual(limited.returncode, 0, "a message went into a file that could not grow")
        self.assertRegex(limited.stderr, "(?i)full|too large|disk")
        self.run_it("call", "ledger.work", "-a", '["after"]', "--wait", "--timeout", "20", check=True)
        self.assertEqual(worker.stop(), 0)



def task(name, *args, **options):
    return {"task": f"tasks.{name}", "args": list(args), "kwargs": {}, "options": options, "subtask_type": None, "immutable": False}


def many(kind, *tasks, **options):
    return {"task": f"celery.{kind}", "args": [], "kwargs": {"tasks": list(tasks)}, "options": options, "subtask_type": kind,
            "immutable": False}


def chord(header, body):
    return {"task": "celery.chord", "args": [], "kwargs": {"kwargs": {}, "header": header, "body": body}, "options": {},
            "subtask_type": "chord", "immutable": False}


class Canvas(Command):
    """Workflows on the command line."""

    def file(self, flow):
        path = self.folder / "flow.json"
        path.write_text(flow if isinstance(flow, str) else json.dumps(flow))
        return path

    def tasks(self):
        self.worker("-c", "2", module=harness.TASKS).start()

    def call(self, flow, *options):
        return self.run_it("call", "--canvas", self.file(flow), "--wait", "--timeout", "30", *options)

    def messages(self):
        out = self.run_it("list", "--json", check=True).stdout
        return sum(json.loads(line)["ready"] for line in out.splitlines())

    def test_a_workflow_is_sent_and_waited_for(self):
        self.tasks()
        flow = many("chain", task("add", 1, 2), many("group", task("add", 3), task("add", 4)), task("xsum"), task("add", 100))
        self.assertEqual(self.call(flow).stdout, "113\n")
        self.assertEqual(self.call(chord([task("add", 1, 1), task("add", 2, 2)], task("xsum"))).stdout, "6\n")
        self.assertEqual(self.call(many("group", task("add", 1, 1), task("add", 2, 2))).stdout, "[2, 4]\n")
        self.assertEqual(self.call(task("add", 1, 1)).stdout, "2\n")
        done = self.run_it("call", "--canvas", self.file(many("chain", task("add", 1, 1), task("add", 1))), "--task-id", "the-last")
        self.assertEqual(done.stdout, "the-last\n")
        self.assertEqual(self.run_it("result", "the-last", "--timeout", "30").stdout, "3\n")
        done = self.call(many("chain", task("fail", "no such thing"), task("add", 1)))
        self.assertEqual((done.returncode, done.stderr), (1, "ValueError: no such thing\n"))

    def test_a_workflow_may_come_from_standard_input(self):
        env = {**os.environ, **harness.environment(self.url, self.url)}
        done = subprocess.run([harness.APIUM, "call", "--canvas", "-"], env=env, input=json.dumps(task("add", 1, 1)), text=True,
                              stdout=subprocess.PIPE, check=True, timeout=60)
        self.assertRegex(done.stdout, "^[-0-9a-f]{36}$")
        self.assertEqual(self.messages(), 1)

    def test_what_is_no_workflow_is_named_before_anything_is_sent(self):
        bad = ((78, "flow.json: .*byte", "{"), (78, "it is no object", "[]"), (78, "it names no task", "{}"),
               (78, r"kwargs.tasks\[1\] names no task", many("chain", task("add", 1, 1), {"args": []})),
               (78, "kwargs.header is no list", chord("all of them", task("xsum"))),
               (78, "kwargs.body is missing", chord([task("add", 1, 1)], None)),
               (78, "kwargs.tasks is missing", {"task": "celery.group", "subtask_type": "group", "kwargs": {}}),
               (78, 'the id "x" is given twice: tasks.0. and tasks.2.',
                many("group", task("add", 1, 1, task_id="x"), task("noop"), task("add", 1, 1, task_id="x"))),
               (2, "priority 500 is not between", many("group", task("noop"), task("noop", priority=500))))
        for code, words, flow in bad:
            with self.subTest(words):
                self.fails(code, words, "call", "--canvas", self.file(flow))
        self.fails(78, "cannot read .*nowhere.json", "call", "--canvas", self.folder / "nowhere.json")
        self.fails(2, "no NAME with it", "call", "tasks.add", "--canvas", self.file(task("noop")))
        self.fails(2, "no --args with it", "call", "-a", "[1]", "--canvas", self.file(task("noop")))
        self.fails(78, "cannot send a chord: the result backend disabled keeps no results", "call", "--canvas",
                   self.file(many("group", task("noop"), chord([task("add", 1, 1)], task("xsum")))), backend="disabled://")
        self.run_it("call", "tasks.noop", check=True)
        self.assertEqual(self.messages(), 1)

    def test_the_sample_counts_words_as_its_own_worker(self):
        program = harness.BUILD / "samples" / "workflow"
        paths = [self.folder / name for name in ("one.txt", "two.txt")]
        paths[0].write_text("a word or five are here")
        paths[1].write_text("two more")
        env = {**os.environ, **harness.environment(self.url, self.url)}
        worker = subprocess.Popen([program, "worker", "-c", "2"], env=env, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            done = subprocess.run([program, *paths], env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
            self.assertEqual(done.stdout, '"8 words in 2 files"\n')
            done = subprocess.run([program, paths[0], self.folder / "none"], env=env, stderr=subprocess.PIPE, text=True, timeout=60,
                                  check=False)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, "FileNotFoundError.*none: No such file")
        finally:
            worker.terminate()
            self.assertEqual(worker.wait(30), 0)

    def test_a_file_to_be_drawn_that_is_not_there_is_no_task(self):
        self.fails(78, "nowhere.json: No such file", "canvas", "show", "nowhere.json")

    def test_a_workflow_in_a_file_is_drawn(self):
        flow = self.file(many("chain", task("add", 1, 2, link=[task("noop")]), chord([task("add", 3)], task("xsum", task_id="the-sum"))))
        drawn = self.run_it("canvas", "show", flow, env={"LC_ALL": "C"}, check=True).stdout
        laid_out = self.file(json.dumps(json.loads(flow.read_text()), indent=4))
        self.assertEqual(self.run_it("canvas", "show", laid_out, env={"LC_ALL": "C"}, check=True).stdout, drawn)
        self.assertEqual(drawn, "chain\n|- tasks.add [1, 2]\n|  `- link tasks.noop\n`- chord\n   |- tasks.add [3]\n"
                                "   `- then tasks.xsum  the-sum\n")
        self.assertIn("├─ tasks.add", self.run_it("canvas", "show", flow, env={"LC_ALL": "C.UTF-8"}, check=True).stdout)
        dot = self.run_it("canvas", "show", "--dot", flow, check=True).stdout
        self.assertRegex(dot, r'(?s)^digraph workflow {.*n2 \[label="tasks.add \[1, 2\]"\];\n  n1 -> n2;.*}\n$')
        self.fails(78, "it names no task", "canvas", "show", self.file("{}"))
        self.fails(2, "No such command 'draw'", "canvas", "draw", flow)
        self.fails(2, "Missing argument", "canvas")
        odd = self.file(task("add", "a\x1b]0;title\x07"))
        self.assertNotIn("\x1b", self.run_it("canvas", "show", odd, check=True).stdout)

    def test_what_came_of_a_workflow_is_drawn(self):
        self.tasks()
        flow = many("chain", task("add", 1, 2, task_id="first"), many("group", task("add", 3, task_id="left"),
                                                                      task("fail", "no", task_id="right")))
        flow["kwargs"]["tasks"][1]["kwargs"]["tasks"][1]["immutable"] = True
        self.assertEqual(self.call(flow).returncode, 1)
        self.assertEqual(self.run_it("result", "left", "--timeout", "30").stdout, "6\n")
        for words in (("canvas", "show", "left"), ("result", "--tree", "left")):
            drawn = self.run_it(*words, env={"LC_ALL": "C"}, check=True).stdout
            self.assertRegex(drawn, "^first  SUCCESS  3\n`- group [-0-9a-f]*  FAILURE  2 of 2\n   .- left <  SUCCESS  6\n"
                                    "   .- right  FAILURE  ValueError: no\n$")
        dot = self.run_it("canvas", "show", "first", "--dot", check=True).stdout
        self.assertIn("fillcolor=salmon", dot)
        self.assertEqual(self.run_it("canvas", "show", "never-heard-of", check=True).stdout, "never-heard-of  PENDING\n")


if __name__ == "__main__":
    harness.main()
