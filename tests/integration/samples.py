"""The samples, as their users run them: from outside, and nothing of them stays behind."""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import unittest

import harness

SAMPLES = harness.BUILD / "samples"
SOURCES = harness.ROOT / "samples"
TEXTS = sorted([harness.ROOT / "LICENSE", *harness.ROOT.glob("docs/*.md"), *harness.ROOT.glob("worker/*.c")])


def running(program):
    """Processes of a sample, whoever their parent is by now."""
    found = set()
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(entry / "exe") == str(SAMPLES / program):
                    found.add(int(entry.name))
    return found


class Case(unittest.TestCase):
    def setUp(self):
        self.temp = harness.folder("temp")
        self.before = {}

    def start(self, program, *args):
        self.before[program] = running(program)
        return subprocess.Popen([SAMPLES / program, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(self.temp)})

    def end(self, demo, program, code):
        """What it said, once it is gone with all that it made."""
        out, err = demo.communicate(timeout=60)
        self.assertEqual(demo.returncode, code, err)
        self.assertEqual(list(self.temp.iterdir()), [])
        harness.eventually(lambda: running(program) <= self.before[program], 5, "no process is left behind")
        return out, err

    def passes(self, program, *args):
        return self.end(self.start(program, *args), program, 0)[0]

    def fails(self, program, code, words, *args):
        self.assertRegex(self.end(self.start(program, *args), program, code)[1], words)


class Wordcount(Case):
    def counted_by_tr(self, paths):
        text = b"".join(path.read_bytes() + b"\n" for path in paths)
        done = subprocess.run("tr -cs A-Za-z '\\n' | tr A-Z a-z | sort | uniq -c | grep '[a-z]'", shell=True, input=text,
                              stdout=subprocess.PIPE, check=True, env={**os.environ, "LC_ALL": "C"})
        return done.stdout.decode()

    def test_it_counts_what_tr_and_uniq_count(self):
        folder = harness.folder("words")
        long = folder / "long"  # words on each side of a part's border and across it, one longer than a part
        long.write_bytes(b"ab cd " * 20000 + b"x" * 200000 + b" end" + b"q" * 65530 + b" last")
        (folder / "empty").touch()
        (folder / "blanks").write_text(" \n" * 40000)
        paths = [*TEXTS, long, folder / "empty", folder / "blanks"]
        self.assertEqual(self.passes("wordcount", "-a", *paths), self.counted_by_tr(paths))

    def test_a_word_is_in_one_part_wherever_files_are_cut(self):
        folder = harness.folder("cuts")
        for shift in range(-3, 4):
            (folder / f"file{shift}").write_bytes(b"a" * (65536 + shift) + b" bb " + b"c" * 65533)
        paths = sorted(folder.iterdir())
        self.assertEqual(self.passes("wordcount", "-a", *paths), self.counted_by_tr(paths))

    def test_folders_are_counted_as_they_are_found(self):
        """Each adds its files and folders to the chord that it is a part of."""
        folder = harness.folder("tree")
        (folder / "a" / "b" / "c").mkdir(parents=True)
        (folder / "empty").mkdir()
        (folder / "link").symlink_to(folder)
        for i, where in enumerate((folder, folder / "a", folder / "a" / "b" / "c")):
            for name in ("one", "two"):
                (where / name).write_text(f"word{'x' * i} and {name}\n" * 4000)
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.assertEqual(self.passes("wordcount", "-a", folder), self.counted_by_tr(files))
        self.assertEqual(self.passes("wordcount", "-a", TEXTS[0], folder / "empty"), self.counted_by_tr([TEXTS[0]]))

    def test_it_shows_a_table_and_what_to_try_next(self):
        text = harness.folder("words") / "text"
        text.write_text("one two two\n")
        said = self.passes("wordcount", text)
        self.assertRegex(said, r"2 +two\n +1 +one\n")
        self.assertRegex(said, r"(?m)^3 words, 2 different ones, in 0.0 MB, in [\d.]+ s; 1 parts by 1 processes \(1\)$")
        self.assertIn("-b redis://localhost/0\n", said)

    def test_nothing_to_count_is_an_empty_table(self):
        empty = harness.folder("words") / "empty"
        empty.touch()
        self.assertIn("\n0 words", self.passes("wordcount", empty))

    def test_what_it_cannot_do_it_says(self):
        self.fails("wordcount", 1, r"^wordcount: cannot read /none/such: No such file or directory\n$", "/none/such")
        self.fails("wordcount", 1, r"^wordcount: cannot read /dev/null: it is neither a file nor a folder\n$", "/dev/null")
        self.fails("wordcount", 2, "name a result backend too", "-b", "amqp://localhost", TEXTS[0])
        self.fails("wordcount", 1, "cannot send a chord: the result backend disabled keeps no results", "-w", "0", "-b", "memory://", "-r", "disabled://", TEXTS[0])

    def test_a_part_that_fails_ends_it_with_the_reason(self):
        """The workers are those of another machine, where the file is not: here, of another folder."""
        folder = harness.folder("away")
        url = f"sqlite:///{folder}/apium.db"
        text = folder / "text"
        text.write_text("one two\n" * 30000)
        demo = self.start("wordcount", "-b", url, "-w", "0", text)
        ready = harness.eventually(lambda: re.search(r"(?m)^celery +4 ", harness.apium("list", broker=url, backend=url).stdout), 10,
                                   "the parts are waiting")
        self.assertTrue(ready)
        text.unlink()
        worker = harness.Process("wordcount-worker", [SAMPLES / "wordcount", "-b", url, "--result-backend", url, "worker"]).start()
        try:
            said = demo.communicate(timeout=20)[1]
        finally:
            worker.stop()
        self.assertEqual(demo.returncode, 1, said)
        self.assertRegex(said, rf"wordcount: OSError: \(2, 'No such file or directory', '{text}'\)")

    def test_a_signal_ends_it_and_its_workers(self):
        folder = harness.folder("words")
        (folder / "0").write_text("word and others\n" * 250_000)
        for i in range(1, 300):  # a gigabyte under many names: seconds of work
            os.link(folder / "0", folder / str(i))
        demo = self.start("wordcount", *folder.iterdir())
        harness.eventually(lambda: running("wordcount") - self.before["wordcount"] - {demo.pid}, 10, "its workers are there")
        demo.send_signal(signal.SIGTERM)
        self.assertIn("wordcount: interrupted", self.end(demo, "wordcount", 1)[1])


class Pipeline(Case):
    def header(self, path):
        return pathlib.Path(path).read_bytes().split(b"\n255\n")[0]

    def test_it_makes_every_size_of_every_picture_and_joins_them(self):
        folder = harness.folder("pipeline")
        gray = folder / "gray.pgm"
        gray.write_bytes(b"P5\n# a comment\n4 2\n255\n" + bytes([0, 0, 200, 100, 0, 0, 100, 200]))
        color = folder / "color.ppm"
        color.write_bytes(b"P6 2 2 255\n" + bytes(range(12)))
        manifest = json.loads(self.passes("pipeline", "-o", folder / "out", "-s", "2,1", gray, color))
        self.assertEqual(manifest, json.loads((folder / "out" / "manifest.json").read_text()))
        self.assertEqual([p["picture"] for p in manifest["pictures"]], [str(gray), str(color)])
        self.assertEqual([(s["width"], s["height"]) for p in manifest["pictures"] for s in p["sizes"]],
                         [(2, 1), (1, 1), (2, 2), (1, 1)])
        scaled = (folder / "out" / "gray-2.ppm").read_bytes()
        self.assertEqual(scaled, b"P6\n2 1\n255\n" + bytes([0] * 3 + [150] * 3))
        self.assertEqual((folder / "out" / "sheet.ppm").read_bytes(),
                         b"P6\n4 2\n255\n" + bytes([0] * 3 + [150] * 3 + list(range(6)) + [0] * 6 + list(range(6, 12))))

    def test_it_draws_pictures_when_it_is_given_none(self):
        folder = harness.folder("drawn")
        manifest = json.loads(self.passes("pipeline", "-o", folder, "-s", "32"))
        self.assertEqual(len(manifest["pictures"]), 6)
        self.assertEqual(self.header(folder / "sheet.ppm"), b"P6\n192 24")

    def test_a_picture_that_is_none_fails_the_sheet_with_the_reason(self):
        folder = harness.folder("broken")
        bad = folder / "bad.ppm"
        bad.write_text("no picture")
        self.fails("pipeline", 1, r"(?m)^pipeline: .*ChordError: .*OSError.*cannot read .*bad.ppm: it is no binary PPM", "-o", folder / "out", bad)
        self.assertFalse((folder / "out" / "sheet.ppm").exists())
        self.fails("pipeline", 1, "would have the same thumbnails", "-o", folder / "out", bad, bad)


class Order(Case):
    def test_what_was_done_is_undone_when_a_step_fails(self):
        for options in ([], ["-m"]):
            with self.subTest(options=options):
                said = self.passes("order", *options)
                self.assertRegex(said, r"(?m)^order-1 +shipped *$")
                self.assertRegex(said, r"(?m)^order-2 +undone +shop.errors.CardDeclined: \('order-2', '5999 0002'\)$")
                self.assertRegex(said, r"(?m)^order-3 +undone +ValueError: order-3: no address$")
                self.assertRegex(said, r"(?m)^order-4 +undone +LookupError: order-4: not enough in stock$")
                self.assertRegex(said, r"(?m)^in stock +8 kettles of 10, 3 teapots of 3$")

    def test_money_is_paid_back_only_where_it_was_paid(self):
        said = self.end(self.start("order"), "order", 0)[1]
        self.assertEqual(re.findall(r"the bank pays back what (\S+) cost", said), ["order-3"])


class WithPython(Case):
    """Steps in C and steps in Python, and what Python composes for C workers; over Redis."""

    @classmethod
    def setUpClass(cls):
        cls.server = harness.Redis().start()
        cls.url = cls.server.url()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def setUp(self):
        super().setUp()
        self.workers = []

    def tearDown(self):
        for worker in self.workers:
            worker.kill_group()

    def python(self, program, *args):
        return subprocess.run([sys.executable, str(SOURCES / program), *map(str, args)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                              env={**os.environ, "URL": self.url, "PYTHONDONTWRITEBYTECODE": "1"})

    def start_mixed(self):
        c = harness.Worker(self.url, self.url, "-Q", "c", module=str(SAMPLES / "mixed.so"))
        py = harness.Process("celery-worker", [sys.executable, "-m", "celery", "-A", "steps", "worker", "-Q", "python", "-l", "INFO",
                                               "-c", "2", "--without-gossip", "--without-mingle"],
                             {"URL": self.url, "PYTHONDONTWRITEBYTECODE": "1"}, cwd=SOURCES / "mixed").start()
        self.workers += [py, c]
        c.start()
        harness.eventually(lambda: " ready." in py.log(), 30, py.log)
        return c, py

    def test_the_steps_of_a_workflow_alternate_between_c_and_python(self):
        c, py = self.start_mixed()
        folder = harness.folder("mixed")
        text = folder / "text"
        text.write_text("The cat sat on the sofa. The\nsofa was red!\n\nA title without a stop\n\nIs it table or sofa?")
        done = self.python("mixed/flow.py", text, folder / "report")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"^4 sentences, 20 words: easy to read \([\d.]+\)\.\nOften: sofa 3, ")
        self.assertEqual((folder / "report").read_text(), done.stdout)
        for step, worker in (("read", c), ("vocabulary", py), ("measure", c), ("grade", py), ("save", c)):
            self.assertRegex(worker.log(), rf"Task mixed.{step}\[\S+\] succeeded")
        # The same as a file for the command.
        flow = self.python("mixed/flow.py", "--json", text, folder / "report")
        (folder / "flow.json").write_text(flow.stdout)
        (folder / "report").unlink()
        saved = harness.apium("call", "--canvas", folder / "flow.json", "--wait", broker=self.url, backend=self.url, check=True)
        self.assertEqual(json.loads(saved.stdout), {"file": str(folder / "report"), "bytes": len(done.stdout)})
        self.assertEqual((folder / "report").read_text(), done.stdout)
        # An exception of either side is one in the program that waits.
        done = self.python("mixed/flow.py", folder / "none", folder / "report")
        self.assertRegex(done.stderr, r"^flow.py: FileNotFoundError: .*No such file or directory: '.*/none'")
        text.write_text("1 2 3\n")
        done = self.python("mixed/flow.py", text, folder / "report")
        self.assertEqual(done.stderr, "flow.py: ValueError: there are no words in it\n")

    def test_python_composes_a_chord_for_c_workers(self):
        self.workers.append(harness.Process("wordcount-worker", [SAMPLES / "wordcount", "-b", self.url, "--result-backend", self.url,
                                                                 "worker", "-l", "INFO"]).start())
        text = harness.folder("words") / "text"
        text.write_text("one two two\n" * 30000)
        done = self.python("python/wordcount.py", self.url, text)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "    60000 two\n    30000 one\n90000 words, 2 different ones\n")

    def test_one_call_becomes_the_whole_count(self):
        self.workers.append(harness.Process("wordcount-worker", [SAMPLES / "wordcount", "-b", self.url, "--result-backend", self.url,
                                                                 "worker", "-l", "INFO"]).start())
        folder = harness.folder("words")
        (folder / "text").write_text("one two two\n" * 30000)
        done = harness.apium("call", "wordcount.all", "--args", json.dumps([str(folder)]), "--wait", broker=self.url, backend=self.url)
        self.assertEqual(json.loads(done.stdout)["rows"], [["two", 60000], ["one", 30000]], done.stderr)
        done = harness.apium("call", "wordcount.all", "--args", '["/none/such"]', "--wait", broker=self.url, backend=self.url)
        self.assertIn("OSError: cannot read /none/such: No such file", done.stderr)

    def test_the_demo_counts_the_same_over_redis(self):
        text = harness.folder("words") / "text"
        text.write_text("one two two\n" * 30000)
        said = self.passes("wordcount", "-b", self.url, text)
        self.assertRegex(said, r"60000 +two\n +30000 +one\n")
        header = re.search(r"canvas show ([0-9a-f-]{36})\n", said).group(1)
        drawn = harness.apium("canvas", "show", header, broker=self.url, backend=self.url, check=True).stdout
        self.assertRegex(drawn, r"^group \S+  SUCCESS  6 of 6\n")


if __name__ == "__main__":
    harness.main()
