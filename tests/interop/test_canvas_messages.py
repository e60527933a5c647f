"""The messages that apium publishes for a workflow are the ones that Celery publishes, ids aside; and a signature that is read and written
again is the same."""
import glob
import json
import os
import unittest
import uuid

import canvas_expressions
import canvas_kit
import harness

FIXTURES = str(canvas_kit.CAPTURED.parent)

# Expressions that apium sends otherwise than Celery 5.6, and why.
OTHER_MESSAGES = {
    "chord of chain that ends in group": "Celery gives the inner group the chord's own id, and its count then completes the chord too early: "
                                         "apium makes the inner group a chord that hands its results on",
}
# Of these only the result differs that the sender is told of: the id of an inner header is the one that is used; Celery tells one that it
# replaces when the header is sent.
OTHER_RESULTS = {"chord of chain with group", "chord of chain with chord", "chord five deep"}

# What older Celery does otherwise than 5.6, as changes of what apium sends. Before 5.6 a chord's body is in no group, where 5.6 puts it into
# the header's; and 5.2 gives the members of a group that is sent by itself no index.


def as_before_5_6(operations):
    """Without the header's group in the bodies of chords."""
    ops, ((task_id, parent), members) = bodies_alone(operations)
    if parent and parent[0][0] == task_id:
        task_id = its_own(task_id)
    if parent and parent[1] == []:  # of an empty header the body alone is sent
        for op in ops:
            headers = op["message"]["headers"]
            headers["group"] = None if headers["group"] == parent[0][0] else headers["group"]
    return [ops, [[task_id, parent], members]]


def bodies_alone(value):
    if isinstance(value, list):
        return [bodies_alone(one) for one in value]
    if not isinstance(value, dict):
        return value
    value = {key: bodies_alone(one) for key, one in value.items()}
    for part, header in ((value.get("embed"), value.get("headers", {}).get("group")),  # of a message; of a signature
                         (value.get("options"), value.get("options", {}).get("group_id"))):
        if header and part.get("chord"):
            part["chord"] = alone(part["chord"], header)
    return value


def alone(body, header):
    if isinstance(body, list):
        return [alone(one, header) for one in body]
    if not isinstance(body, dict):
        return body
    return {key: its_own(one) if key == "task_id" and one == header else alone(one, header) for key, one in body.items()
            if key != "group_id" or one != header}


def its_own(header):
    """The id of a body that is a group: in 5.6 it is the header's."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, header))


def as_5_2(operations):
    ops, result = as_before_5_6(operations)
    (group, parent), members = result
    return [ops if members is None or parent else without_index(ops, group), result]


def without_index(value, group):
    if isinstance(value, list):
        return [without_index(one, group) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: without_index(one, group) for key, one in value.items()
            if key != "group_index" or value.get("group", value.get("group_id")) != group}


def signatures(value):
    """The outermost signatures in a document."""
    if isinstance(value, dict):
        if "task" in value and "subtask_type" in value and "options" in value:
            yield value
        else:
            for one in value.values():
                yield from signatures(one)
    elif isinstance(value, list):
        for one in value:
            yield from signatures(one)


def fixture_signatures():
    for path in sorted(glob.glob(os.path.join(FIXTURES, "5.*", "*.json"))):
        with open(path) as file:
            for message in json.load(file).get("messages", ()):
                try:
                    body = json.loads(message.get("body_text", ""))
                except ValueError:
                    continue
                for one in signatures(body):
                    yield os.path.relpath(path, FIXTURES), one


def requests(documents, way):
    return [{"signature": one["signature"], "args": one["args"], "options": one["options"], "chords": way} for one in documents]


class CanvasMessages(unittest.TestCase):
    def agree(self, name, theirs, ours):
        if isinstance(ours, str):
            self.fail(ours)
        if name in OTHER_MESSAGES:
            self.assertNotEqual(theirs[0], ours[0], "no deviation any more")
        elif name in OTHER_RESULTS:
            self.assertEqual(canvas_kit.differences(theirs[0], ours[0]), [])
            self.assertNotEqual(theirs[1], ours[1], "no deviation any more")
        else:
            self.assertEqual(canvas_kit.differences(theirs, ours), [])

    def test_every_signature_of_the_fixtures_is_written_as_it_was_read(self):
        found = list(fixture_signatures())
        self.assertGreater(len(found), 200)
        for (name, one), again in zip(found, canvas_kit.apium_canvas([{"read": one} for _, one in found])):
            with self.subTest(fixture=name):
                self.assertEqual(canvas_kit.differences(one, again), [])

    def test_what_is_unknown_in_a_signature_is_kept(self):
        sig = {"task": "x", "args": [1.0, 10**30], "kwargs": {"k": None}, "options": {"foo": {"bar": [1]}, "chain": None},
               "subtask_type": "xmap", "immutable": True, "chord_size": None, "more": {"a": 1e5}}
        self.assertEqual(canvas_kit.apium_canvas([{"read": sig}]), [sig])

    def test_the_messages_are_those_of_celery_5_6(self):
        documents = canvas_kit.captured("messages.json")["expressions"]
        for way in ("counted", "polled"):
            for (name, theirs), ours in zip(documents.items(), canvas_kit.apium_operations(requests(documents.values(), way))):
                with self.subTest(expression=name, chords=way):
                    self.agree(name, canvas_kit.canonical(canvas_kit.operations(*theirs[way])),
                               ours if isinstance(ours, str) else canvas_kit.canonical(ours))

    @unittest.skipIf(canvas_expressions.VERSION > (5, 6), "Celery 5.7 draws chains behind chords otherwise")
    def test_the_messages_are_those_of_the_installed_celery(self):
        app = canvas_kit.celery_app()
        version = canvas_expressions.VERSION
        as_installed = as_5_2 if version < (5, 3) else as_before_5_6 if version < (5, 6) else lambda operations: operations
        asked = requests([canvas_expressions.make(name, app).json() for name in canvas_expressions.ALL], "counted")
        for name, ours in zip(canvas_expressions.ALL, canvas_kit.apium_operations(asked)):
            with self.subTest(expression=name):
                theirs = canvas_kit.celery_operations(app, canvas_expressions.make(name, app))
                self.agree(name, canvas_kit.canonical(theirs), ours if isinstance(ours, str) else canvas_kit.canonical(as_installed(ours)))

    def test_a_chord_is_refused_where_no_results_are_kept(self):
        chord = canvas_kit.captured("messages.json")["expressions"]["chord"]
        task = canvas_kit.captured("messages.json")["expressions"]["task"]
        refused, sent = canvas_kit.apium_canvas(requests([chord, task], "refused"))
        self.assertIn("cannot send a chord: the result backend rpc keeps no results to gather", refused["error"])
        self.assertEqual(len(sent["ops"]), 1)


if __name__ == "__main__":
    harness.main()
