"""Workflows built in Python, run by a Python worker, by a C worker, and by both sharing the queue: equal results, states, parents,
children and errors. What Celery 5.6 made of them was captured; what the installed Celery makes of them is run here beside ours."""
import copy
import re
import unittest

import canvas_expressions
import canvas_kit
import canvas_run
import harness

servers = harness.Servers()
TIMEOUT = 60 if harness.SANITIZED else 25
NO = ["ValueError", ["no"]]
GONE = object()


def tearDownModule():
    servers.stop()


def died(part, text):
    return ["ChordError", [f"Dependency {part} raised {text}"]]


# Where 5.6.3 hangs or loses something, and what is right, as changes of what was captured.
RIGHT = {
    # The steps behind a failed one are forgotten when they are chords (5.7 marks the first two, too) or members of a group.
    "chain fails before chord": {"state": "FAILURE", "value": NO},
    "chain fails before chord, more": {"state": "FAILURE", "value": NO},
    "chain fails before group": {f"members.{i}.{key}": value for i in (0, 1) for key, value in (("state", "FAILURE"), ("value", NO))},
    # A body that is a chain is not found, and its header's group is marked in its place (5.7 does as is written here).
    "group in chain, one fails": {"state": "FAILURE", "value": died("#5", "ValueError('late')"), "parent.parent.state": GONE,
                                  "parent.parent.parent.children.0.state": GONE},
    "task | chord fails | task": {"state": "FAILURE", "value": died("#5", "ValueError('late')"), "parent.parent.state": GONE,
                                  "parent.parent.parent.children.0.state": GONE},
    # The third group is sent once for each member of the second, under the same ids.
    "three groups": {**{f"members.{i}.value": [6, 6] for i in (0, 1)}, **{f"parent.members.{i}.children": GONE for i in (0, 1)},
                     **{f"{way}members.{i}.in group": "#9" for i in (0, 1) for way in ("", "parent.")}},
    # With luck it is right: the inner group's size takes the place of the chord's.
    "chord of chain that ends in group": {},
    # The upper chord waits for ever.
    "chord of failing chord": {"state": "FAILURE", "value": died("#2", "ChordError(\"Dependency #5 raised ValueError('no')\")")},
    "chord of unknown task": {"state": "FAILURE", "value": died("#2", "NotRegistered('tasks.no_such')"),
                              "parent.members.0.in group": "#1"},
    # The chain is called in the process, as if it were a function of three arguments, and what that raises hides the error.
    "link_error chain": {"value": NO, "strays": [
        {"after": "#0", "id": "#1", "state": "SUCCESS", "value": "#0",
         "children": [{"after": "a part", "id": "#2", "in group": "#3", "state": "SUCCESS", "value": "#0"}]}]},
    # The members are revoked as well, which hides why they did not run.
    "chord body group, part fails": {f"members.{i}.{key}": value for i in (0, 1) for key, value in (("state", "FAILURE"), ("value", NO))},
    # The inner header's group was told as #3, but is sent as another one.
    "two groups and a sum": {"parent.members.0.in group": "#3", "parent.members.1.in group": "#3"},
}
# What 5.2 and 5.5 get wrong beside that.
WRONG_BEFORE_5_6 = {
    # The failed body has no id to its chain: a TypeError (5.5: ValueError) takes the place of everything.
    "chord body chain, part fails", "chord body chain, part fails, link_error",
}


# Other messages when C sends them.
BUILT_OTHERWISE = {
    "chunks as a task",  # by itself it is sent as the group that it stands for
    "chord of chain that ends in group",  # the group is gathered, so that it counts as one part
}


def changed(tree, changes):
    """The tree with what is at "a.0.b" set, or taken away."""
    tree = copy.deepcopy(tree)
    for path, value in changes.items():
        *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        at = tree
        for key in way:
            at = at[key]
        if value is GONE:
            del at[last]
        else:
            at[last] = value
    return renumbered(tree, {})


def renumbered(tree, names):
    if isinstance(tree, str):
        return re.sub(r"#\d+", lambda found: f"#{names.setdefault(found[0], len(names))}", tree)
    if isinstance(tree, dict):
        return {key: renumbered(tree[key], names) for key in sorted(tree)}
    return [renumbered(one, names) for one in tree] if isinstance(tree, list) else tree


def expected_of_5_6():
    return {name: changed(tree, RIGHT.get(name, {})) for name, tree in canvas_kit.captured("results.json")["expressions"].items()}


class CanvasWorkers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dbs = iter(range(16))
        # What workers of the installed Celery do: the pattern for all others.
        app, store, where = cls.place()
        worker = harness.CeleryWorker(*where, "-c", "4", "-Q", "celery,python").start()
        try:
            results = canvas_run.send(app, canvas_expressions.ALL)
            cls.pattern = canvas_run.await_rest(app, store, results, 4, 90, canvas_kit.otherwise)
        finally:
            worker.kill_group()
        wrong = RIGHT.keys() | (WRONG_BEFORE_5_6 if canvas_expressions.VERSION < (5, 6) else set())
        cls.pattern = {name: tree for name, tree in cls.pattern.items() if name not in wrong}

    @classmethod
    def place(cls, broker=None):
        """A Redis database of its own, and a broker: an app, its store, and what workers need to know."""
        db = next(cls.dbs)
        backend = servers.redis.url(db)
        broker = broker or backend
        app = harness.app(broker, backend)
        for queue in ("celery", "python"):
            app.amqp.queues.add(queue)
        return app, servers.redis.client(db), (broker, backend)

    def start(self, *workers):
        for worker in workers:
            self.addCleanup(worker.kill_group)
            worker.start()

    def equal(self, expected, wrong):
        for name, tree in wrong.items():
            with self.subTest(expression=name):
                self.assertEqual(canvas_kit.differences(expected[name], tree), [])
                self.fail("it became right when it was too late")

    def as_celery_5_6(self, broker=None, conf=None):
        expected = expected_of_5_6()
        app, store, where = self.place(broker)
        self.start(harness.Worker(*where, "-c", "4", conf=conf), harness.CeleryWorker(*where, "-c", "2", "-Q", "python"))
        results = canvas_run.replay(app, store, canvas_kit.captured("messages.json")["expressions"])
        self.equal(expected, canvas_run.await_expected(app, store, results, expected, TIMEOUT))

    def as_installed(self, both, broker=None):
        app, store, where = self.place(broker)
        self.start(harness.Worker(*where, "-c", "3" if both else "4"),
                   harness.CeleryWorker(*where, "-c", "3", "-Q", "celery,python" if both else "python"))
        results = canvas_run.send(app, self.pattern)
        self.equal(self.pattern, canvas_run.await_expected(app, store, results, self.pattern, TIMEOUT,
                                                              canvas_kit.otherwise))

    def test_a_c_worker_does_with_messages_of_celery_5_6_as_its_workers_do(self):
        self.as_celery_5_6()

    def test_a_c_worker_does_with_messages_of_celery_5_6_as_its_workers_do_over_rabbitmq(self):
        self.as_celery_5_6(servers.rabbitmq.url())

    def test_chains_in_pieces_become_the_same(self):
        self.as_celery_5_6(conf={"task_chain_piece_size": 1})

    def test_workers_of_the_installed_celery_do_what_c_builds(self):
        documents = {name: document for name, document in canvas_kit.captured("messages.json")["expressions"].items()
                     if name not in BUILT_OTHERWISE and name not in RIGHT}
        def view(tree):  # who stands behind whom differs with the groups
            return renumbered(canvas_kit.without(tree, {"group", "in group", "after"}), {})
        expected = {name: view(tree) for name, tree in expected_of_5_6().items() if name in documents}
        app, store, where = self.place()
        self.start(harness.CeleryWorker(*where, "-c", "4", "-Q", "celery,python"))
        results = canvas_run.compose(app, documents, *where)
        self.equal(expected, canvas_run.await_expected(app, store, results, expected, TIMEOUT, view=view))

    def built_in_c(self, broker=None):
        documents = {name: document for name, document in canvas_kit.captured("messages.json")["expressions"].items()
                     if name not in BUILT_OTHERWISE}
        # Of groups within the steps of a header's chain Celery tells one id and sends another.
        def view(tree):
            return renumbered(canvas_kit.without(tree, {"group", "in group"}), {})
        expected = {name: view(tree) for name, tree in expected_of_5_6().items()}
        app, store, where = self.place(broker)
        self.start(harness.Worker(*where, "-c", "3"), harness.CeleryWorker(*where, "-c", "2", "-Q", "python"))
        results = canvas_run.compose(app, documents, *where)
        self.equal(expected, canvas_run.await_expected(app, store, results, expected, TIMEOUT, view=view))

    def test_what_c_builds_and_sends_becomes_what_celery_5_6_makes_of_it(self):
        self.built_in_c()

    def test_what_c_builds_and_sends_becomes_the_same_over_rabbitmq(self):
        self.built_in_c(servers.rabbitmq.url())

    def test_a_c_worker_does_as_the_python_one(self):
        self.as_installed(both=False)

    def test_c_and_python_workers_do_together_as_the_python_one(self):
        self.as_installed(both=True)

    def test_c_and_python_workers_do_together_as_the_python_one_over_rabbitmq(self):
        self.as_installed(both=True, broker=servers.rabbitmq.url())


if __name__ == "__main__":
    harness.main()
