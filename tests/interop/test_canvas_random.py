"""Random workflows end on a C worker as they do on a Python one, and as a small model of Celery's rules says they must.

    test_canvas_random.py [--seed N] [--count N]

The seed of a workflow that ends otherwise is printed, with the smallest part of it that still does. CANVAS_RANDOM=2000 draws so
many.
"""
import json
import os
import random
import sys
import time
import unittest

import canvas_expressions
import canvas_kit
import canvas_run
import harness
from celery import chain, chord, group

COUNT = int(os.environ.get("CANVAS_RANDOM", "200"))
BATCH = 200
FIRST = 1
HIDDEN = canvas_kit.otherwise(None) | {"group", "in group"}  # Celery gives inner headers other ids than it told
TIMEOUT = 120 if harness.SANITIZED else 40

# ---- drawing ----
# A workflow is a task ["task", name, args, immutable, links, errbacks], ["chain", steps], ["group", members] or
# ["chord", header, body].


def task(name, *args, immutable=False, links=(), errbacks=()):
    return ["task", name, list(args), immutable, list(links), list(errbacks)]


class Draw:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.drawn = 0

    def chance(self, p):
        return self.random.random() < p

    def some(self, low, high, depth, fed, fails):
        return [self.flow(depth - 1, fed, fails) for _ in range(self.random.randint(low, high))]

    def one_task(self, fed, fails, bare=False):
        self.drawn += 1
        key = f"k{self.drawn}"
        kind = self.random.choices(("pass", "new", "fail", "flaky"), (6, 2, 1 if fails else 0, 1))[0]
        if kind == "fail":
            made = task("fail", key, immutable=True)
        elif kind == "flaky":
            made = task("flaky", key, self.random.randint(1, 2), immutable=True)
        elif kind == "pass" and fed:
            made = task("echo")
        else:
            made = task("echo", key, immutable=fed)
        if not bare and self.chance(0.12):
            made[4].append(self.flow(self.random.randint(0, 2), True, fails))
        if not bare and self.chance(0.12):
            made[5].append(task("echo") if self.chance(0.5) else task("echo", "error", immutable=True))
        return made

    def flow(self, depth, fed=False, fails=True):
        """A workflow that is given a value (fed) or not, and may fail or not."""
        if depth <= 0 or self.chance(0.2):
            return self.one_task(fed, fails)
        kind = self.random.choice(("chain", "chain", "group", "chord"))
        if kind == "chain":
            first = self.flow(depth - 1, fed, fails)
            return ["chain", [first] + self.some(1, 3, depth, True, fails)]
        if kind == "group":
            members = self.some(1, 3, depth, fed, fails)
            return ["group", members] if len(members) > 1 else members[0]
        header = [self.part(depth - 1, fed, fails) for _ in range(self.random.randint(1, 3))]
        return ["chord", header, self.flow(depth - 1, True, fails)]

    def part(self, depth, fed, fails):
        """Of a header. Parts that end in a group return by its members, whose indexes say nothing about which of several failures the
        chord reports: they do not fail."""
        at = self.random.getstate(), self.drawn
        drawn = self.flow(depth, fed, fails)
        if fails and ends_in_group(drawn) and fails_anywhere(drawn):
            self.random.setstate(at[0])
            self.drawn = at[1]
            drawn = self.flow(depth, fed, False)
        return drawn


def ends_in_group(flow):
    if flow[0] == "chain":
        return ends_in_group(flow[1][-1])
    return flow[0] == "group" or flow[0] == "chord" and ends_in_group(flow[2])


def below(flow):
    """What a workflow consists of, links aside."""
    return {"task": [], "chain": flow[1], "group": flow[1], "chord": [*flow[1], flow[-1]]}[flow[0]]


def everything(flow):
    yield flow
    for one in [*below(flow), *(flow[4] if flow[0] == "task" else ())]:
        yield from everything(one)


def fails_anywhere(flow):
    return any(one[0] == "task" and one[1] == "fail" for one in everything(flow))


def drawn(seed):
    draw = Draw(seed)
    depth = draw.random.randint(1, 4)
    while True:
        flow = draw.flow(depth)
        if sum(1 for _ in everything(flow)) <= 60:  # Celery copies bodies within bodies, to megabytes
            return flow
        depth -= 1


def signature(flow, t):
    kind = flow[0]
    if kind == "chain":
        return chain(*[signature(one, t) for one in flow[1]])
    if kind == "group":
        return group([signature(one, t) for one in flow[1]])
    if kind == "chord":
        return chord([signature(one, t) for one in flow[1]], signature(flow[2], t))
    _, name, args, immutable, links, errbacks = flow
    made = t.i(name, *args) if immutable else getattr(t, name)(*args)
    for link in links:
        made.link(signature(link, t))
    for errback in errbacks:
        made.link_error(signature(errback, t))
    return made


# ---- the model: what the result must be ----
# An end is ["SUCCESS", value] or ["FAILURE", type, text]; of a group, a list of the ends of its members.


def model(flow, given=()):
    kind = flow[0]
    if kind == "task":
        _, name, args, immutable, *_ = flow
        args = args if immutable else [*given, *args]
        return {"echo": lambda value: ["SUCCESS", value],
                "fail": lambda text: ["FAILURE", "ValueError", text],
                "flaky": lambda key, times: ["SUCCESS", {"key": key, "attempts": times + 1}]}[name](*args)
    if kind == "group":
        return grouped([model(one, given) for one in flattened(flow[1])])
    if kind == "chord":
        return model_steps([flow], given)
    return model_steps(spliced(flow), given)


def model_steps(steps, given):
    for i, step in enumerate(steps):
        rest = steps[i + 1:]
        if step[0] == "chord":
            end, body = [model(one, given) for one in unrolled(step[1])], [step[2]]
        elif step[0] == "group" and rest:  # a chord, whose body is what follows
            end, body = [model(one, given) for one in unrolled(step[1])], []
        else:
            end, body = model(step, given) if step[0] == "task" else [model(one, given) for one in unrolled(step[1])], None
        if body is None and not rest:
            return end
        if body is None:
            if end[0] == "FAILURE":
                return never_ran(["chain", rest], end)
            given = [end[1]]
            continue
        behind = [*body, *rest]
        cause = first_failure(end)
        if cause:
            text = f"Dependency # raised {cause[1]}({cause[2]!r})"
            only_a_group = len(behind) == 1 and behind[0][0] == "group"
            return never_ran(["chain", behind], cause if only_a_group else ["FAILURE", "ChordError", text])
        given = [valued(end)]
        if body:
            return model_steps(spliced(["chain", behind]), given)
    raise AssertionError("no steps")


def spliced(flow):
    """The steps of a chain, those of chains within it among them."""
    return [step for one in flow[1] for step in (spliced(one) if one[0] == "chain" else [one])]


def flattened(members):
    return [one for member in members for one in (flattened(member[1]) if member[0] == "group" else [member])]


def unrolled(members):
    """As a frozen group has them: those of a group within it in reverse."""
    stack, out = list(members), []
    while stack:
        one = stack.pop(0)
        if one[0] == "group":
            stack[:0] = reversed(one[1])
        else:
            out.append(one)
    return out


def grouped(ends):
    return ends[0] if len(ends) == 1 and isinstance(ends[0][0], list) else ends


def valued(end):
    return [valued(one) for one in end] if isinstance(end[0], list) else end[1]


def first_failure(end):
    if isinstance(end[0], list):
        return next(filter(None, map(first_failure, end)), None)
    return end if end[0] == "FAILURE" else None


def never_ran(flow, why):
    """The end of what waited for a failure."""
    if flow[0] == "chain":
        return never_ran(flow[1][-1], why)
    if flow[0] == "group":
        return [never_ran(one, why) for one in unrolled(flow[1])]
    return never_ran(flow[2], why) if flow[0] == "chord" else why


def tame(flow):
    """Celery itself gets it right: nothing fails but where little waits for it, and no part of a header is a group."""
    if any(one[0] == "chord" and any(map(ends_in_group, one[1])) or
           one[0] == "chain" and has_grouped_part(one) for one in everything(flow)):
        return False
    return all(fails_well(one) for one in [flow, *(link for one in everything(flow) if one[0] == "task" for link in one[4])])


def has_grouped_part(flow):
    """A group with something behind it is a header. (Not in Celery if it is the body of another one: what follows is then sent for each
    member.)"""
    steps = spliced(flow)
    if any(one[0] == next_one[0] == "group" for one, next_one in zip(steps, steps[1:-1])):
        return True
    return any(step[0] == "group" and any(map(ends_in_group, flattened(step[1]))) for step in steps[:-1]) or \
        any(step[0] == "chord" and ends_in_group(step[2]) for step in steps[:-1])


def own_failure(flow):
    return flow[0] == "task" and flow[1] == "fail" or any(map(own_failure, below(flow)))


def fails_well(flow):
    if not own_failure(flow) or flow[0] == "task":
        return True
    if flow[0] == "chain":
        steps = spliced(flow)
        return all(one[0] == "task" for one in steps) or not any(map(own_failure, steps[:-1])) and fails_well(steps[-1])
    if flow[0] == "group":
        return all(map(fails_well, flow[1]))
    if any(map(own_failure, flow[1])):
        # Its children would be those of the part that returned last.
        if any(one[0] == "task" and one[4] for part in flow[1] for one in everything(part)):
            return False
        return flow[2][0] == "task" and all(one[0] == "task" or one[0] == "chain" and all(step[0] == "task" for step in spliced(one))
                                            for one in flow[1])
    return fails_well(flow[2])


# ---- running ----


def end_of(shape):
    """What a tree of results says, as the model does."""
    if "members" in shape:
        return grouped([end_of(one) for one in shape["members"]])
    if shape["state"] == "SUCCESS":
        return ["SUCCESS", shape["value"]]
    if shape["state"] == "FAILURE":
        return ["FAILURE", shape["value"][0], canvas_kit.UUID.sub("#", str(shape["value"][1][0]))]
    return [shape["state"]]


class Side:
    """A worker, with its Redis database."""

    def __init__(self, server, db, make):
        url = server.url(db)
        self.app, self.store, self.worker = harness.app(url, url), server.client(db), make(url).start()
        self.tasks = canvas_expressions.Tasks(self.app)

    def send(self, flows):
        self.store.flushdb()
        self.app.set_current()  # for composites of composites
        sent = {}
        for seed, flow in flows.items():
            try:
                sent[seed] = signature(flow, self.tasks).apply_async()
            except RuntimeError as error:  # some chords behind chords Celery cannot prepare
                if "Recursive result parents" not in str(error):
                    raise
        return sent

    def trees(self, results):
        metas = canvas_kit.stored(self.store)
        return {seed: canvas_kit.Tree(self.app, result, metas) for seed, result in results.items()}


class CanvasRandom(unittest.TestCase):
    compared = beside = 0

    @classmethod
    def setUpClass(cls):
        cls.server = harness.Redis().start()
        cls.sides = [Side(cls.server, 0, lambda url: harness.CeleryWorker(url, url, "-c", "4")),
                     Side(cls.server, 1, lambda url: harness.Worker(url, url, "-c", "4"))]

    @classmethod
    def tearDownClass(cls):
        for side in cls.sides:
            side.worker.kill_group()
        cls.server.stop()

    def wrong(self, flows, timeout):
        """{seed: what is wrong} of some workflows, run on both sides."""
        python, c = self.sides
        ours = c.send(flows)
        flows = {seed: flows[seed] for seed in ours}
        must = {seed: model(flow) for seed, flow in flows.items()}
        plain = [seed for seed, flow in flows.items() if tame(flow)]
        theirs = python.send({seed: flows[seed] for seed in plain})
        type(self).compared += len(ours)
        type(self).beside += len(theirs)
        state = {}

        def settled():
            state["theirs"], state["ours"] = python.trees(theirs), c.trees(ours)
            state["wrong"] = {}
            for seed in flows:
                problem = self.compare(must[seed], state["ours"][seed], state["theirs"].get(seed))
                if problem:
                    state["wrong"][seed] = problem
            return not state["wrong"]

        try:
            harness.eventually(settled, timeout, every=0.3)
        except AssertionError:
            pass
        return state["wrong"]

    def compare(self, must, ours, theirs):
        end = end_of(ours.shape)
        if end != must:
            return f"model: {json.dumps(must)}\n    C: {json.dumps(end)}"
        if theirs is None:
            return None
        if end_of(theirs.shape) != must:
            return f"model: {json.dumps(must)}\nPython: {json.dumps(end_of(theirs.shape))}"
        return "\n".join(canvas_kit.differences(*(tree.canonical(HIDDEN) for tree in (theirs, ours))))

    def shrunk(self, flow):
        """The smallest part of it that still goes wrong, as far as that is found in a minute: all that are simpler run at once."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ways = dict(enumerate(sorted(simpler(flow), key=lambda one: len(json.dumps(one)))))
            wrong = self.wrong(ways, 6)
            if not wrong:
                break
            flow = ways[min(wrong)]
        return flow

    def test_random_workflows_end_as_they_must(self):
        all_wrong = []
        for first in range(FIRST, FIRST + COUNT, BATCH):
            flows = {seed: drawn(seed) for seed in range(first, min(first + BATCH, FIRST + COUNT))}
            wrong = self.wrong(flows, TIMEOUT)
            all_wrong += sorted(wrong)
            for seed, problem in sorted(wrong.items())[:max(0, 3 - len(all_wrong) + len(wrong))]:
                small = self.shrunk(flows[seed])
                with self.subTest(seed=seed):
                    self.fail(f"test_canvas_random.py --seed {seed}\n{problem}\nof\n{json.dumps(flows[seed])}\nsmallest\n"
                              f"{json.dumps(small)}\n{self.wrong({0: small}, 3).get(0)}")
        self.assertFalse(all_wrong, f"seeds {all_wrong}")
        print(f"{self.compared} workflows, {self.beside} of them beside Celery's", file=sys.stderr)
        if COUNT >= 100:
            self.assertGreaterEqual(self.compared, COUNT * 0.9)
            self.assertGreaterEqual(self.beside, self.compared * 0.5)


def simpler(flow):
    """Workflows with one thing less."""
    kind = flow[0]
    if kind == "task":
        for i in (4, 5):
            for j in range(len(flow[i])):
                yield [*flow[:i], flow[i][:j] + flow[i][j + 1:], *flow[i + 1:]]
        for j, link in enumerate(flow[4]):
            for one in simpler(link):
                yield [*flow[:4], [*flow[4][:j], one, *flow[4][j + 1:]], flow[5]]
        return
    many = flow[1]
    for i in range(len(many)):
        if len(many) > (1 if kind == "chord" else 2) and not (kind == "chain" and i == 0):
            yield [kind, many[:i] + many[i + 1:], *flow[2:]]
        for one in simpler(many[i]):
            yield [kind, [*many[:i], one, *many[i + 1:]], *flow[2:]]
        if below(many[i]):
            yield [kind, [*many[:i], task("echo", "x", immutable=True), *many[i + 1:]], *flow[2:]]
    if kind == "chord":
        for one in [*simpler(flow[2]), *([task("echo")] if flow[2] != task("echo") else [])]:
            yield [kind, many, one]
    yield many[0]


if __name__ == "__main__":
    for name in ("--seed", "--count"):
        if name in sys.argv:
            at = sys.argv.index(name)
            if name == "--seed":
                FIRST, COUNT = int(sys.argv[at + 1]), 1
            else:
                COUNT = int(sys.argv[at + 1])
            del sys.argv[at:at + 2]
    harness.main()
