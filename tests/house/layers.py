#!/usr/bin/env python3
"""layers - an #include points down the house, never up and never to a neighbour on the same floor.

The floors (docs/architecture.md): 0 the public headers, 1 core, 2 brokers, backends and workflows, 3 client,
4 worker, beat and web, 5 cli. Within core the order is base, model, then link and httpd. Samples and the command's
own main see installed headers only, samples their own beside them. Prints each arrow that breaks the rule and exits 1.
"""
import pathlib
import re
import sys

FLOORS = [
    ("core/base", 1.0), ("core/model", 1.1), ("core/link", 1.2), ("core/httpd", 1.2),
    ("brokers", 2), ("backends", 2), ("workflows", 2),
    ("client", 3),
    ("worker", 4), ("beat", 4), ("web", 4),
    ("cli", 5),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
OPEN_TO_ALL = {"config.h"}  # what the build knows: version and adapters
PUBLIC_ONLY = ("include/", "samples/", "cli/apium.c")


def floor(path):
    """The folder of the house that a path is in, and its floor; (None, None) outside of it."""
    for folder, number in FLOORS:
        if path.startswith(folder + "/"):
            return folder, number
    return None, None


def complaint(source, quote, target, root):
    """Why `source` may not include `target`, or None."""
    if target.startswith("apium/") or target in OPEN_TO_ALL:
        if source.startswith("include/") and target in OPEN_TO_ALL:
            return "a public header must stand alone"
        return None
    if source.startswith("samples/") and quote == '"':  # a sample of several files includes its own
        beside = ((root / source).parent / target).resolve()
        if beside.is_file() and (root / "samples").resolve() in beside.parents:
            return None
    if source.startswith(PUBLIC_ONLY):
        return "only installed headers may be used here" if quote == '"' else None
    if quote == "<":
        return None
    folder, here = floor(source)
    if folder is None:
        return None  # tests and benchmarks see everything
    if target.endswith(".lua.h"):  # made by the build, from the script beside the source
        here_too = (root / source).parent / target.removesuffix(".h")
        return None if here_too.is_file() else "no such script beside this file"
    if not (root / target).is_file():
        return "no such file; includes are written from the root of the tree"
    other, there = floor(target)
    if other is None:
        return "that is outside of the house"
    if there > here:
        return f"points up, from {folder} to {other}"
    if there == here and other != folder:
        return f"points to a neighbour, from {folder} to {other}"
    return None


def arrows(root):
    folders = sorted({f.split("/")[0] for f, _ in FLOORS} | {"include", "samples"})
    for folder in folders:
        for path in sorted((root / folder).rglob("*.[ch]")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                match = INCLUDE.match(line)
                if match:
                    yield path.relative_to(root).as_posix(), number, match.group(1), match.group(2)


def self_test(root):
    """The rule itself: a test that cannot fail is none."""
    some = {"core": "core/base/str.h", "broker": "brokers/broker.h", "backend": "backends/backend.h"}
    assert complaint("core/base/x.c", '"', some["broker"], root), "up passed"
    assert complaint("brokers/x.c", '"', some["backend"], root), "a neighbour passed"
    assert complaint("core/base/x.c", '"', "core/model/message.h", root), "up within core passed"
    assert complaint("samples/x.c", '"', some["core"], root), "a sample saw the inside"
    assert complaint("samples/wordcount/x.c", '"', "../../core/base/str.h", root), "a sample climbed out"
    assert not complaint("samples/wordcount/x.c", '"', "../local.h", root), "a sample's own file was refused"
    assert complaint("include/apium/x.h", '"', some["core"], root), "a public header saw the inside"
    assert complaint("backends/x.c", '"', "redis_fetch.lua.h", root), "a script of another folder passed"
    assert not complaint("backends/x.c", '"', some["core"], root), "down was refused"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    self_test(root)
    seen = bad = 0
    for source, number, quote, target in arrows(root):
        seen += 1
        why = complaint(source, quote, target, root)
        if why:
            bad += 1
            print(f"{source}:{number}: {target}: {why}")
    print(f"{seen} includes read, {bad} point the wrong way")
    return 1 if bad or not seen else 0


sys.exit(main())
