#!/usr/bin/env python3
"""run - runs meson's suites and says in one plain line how many cases passed.

    run.py BUILD SUITE... [-- BUILD SUITE...]

Counted are the cases, not the programs: Check's and unittest's own totals. A program without a total counts as one;
a program that died before its total counts as one failure. Prints the tail of every failing program's log.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

TAIL_LINES = 60
SANITIZED_TIMES = 4
CHECK_TOTAL = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)
UNITTEST_TOTAL = re.compile(r"^Ran (\d+) tests? in [\d.]+s\n\n(OK|FAILED)(?: \((.*)\))?", re.M)


def count(result, text):
    """(passed, failed, skipped) of one program."""
    passed = failed = skipped = 0
    for checks, failures, errors in CHECK_TOTAL.findall(text):
        wrong = int(failures) + int(errors)
        passed += int(checks) - wrong
        failed += wrong
    for ran, _, detail in UNITTEST_TOTAL.findall(text):
        parts = dict(p.split("=") for p in detail.split(", ")) if detail else {}
        wrong = int(parts.get("failures", 0)) + int(parts.get("errors", 0)) + int(parts.get("unexpected successes", 0))
        skips = int(parts.get("skipped", 0))
        skipped += skips
        failed += wrong
        passed += max(0, int(ran) - wrong - skips)
    if result == "SKIP":
        return 0, 0, 1
    if result in ("OK", "EXPECTEDFAIL"):
        return (passed, failed, skipped) if passed + failed + skipped else (1, 0, 0)
    return passed, max(failed, 1), skipped


def sanitized(build):
    options = json.loads(pathlib.Path(build, "meson-info", "intro-buildoptions.json").read_text())
    return any(o["name"] == "b_sanitize" and o["value"] != "none" for o in options)


def run(build, suites):
    log = pathlib.Path(build, "meson-logs", "testlog.json")
    if log.exists():
        log.unlink()
    # Most programs wait most of the time: for servers to start, leases to end, outages to be over.
    jobs = os.environ.get("APIUM_TEST_JOBS", str(2 * len(os.sched_getaffinity(0))))
    command = ["meson", "test", "-C", build, "--no-rebuild", "--num-processes", jobs]
    environment = dict(os.environ)
    if sanitized(build):  # several times slower: so are its deadlines
        command += ["--timeout-multiplier", str(SANITIZED_TIMES)]
        environment.update(CK_TIMEOUT_MULTIPLIER=str(SANITIZED_TIMES), APIUM_TEST_SANITIZED="1")
    for suite in suites:
        command += ["--suite", suite]
    print(f"== {build}: {' '.join(suites)}", flush=True)
    begin = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    totals, seen = [0, 0, 0], 0
    for line in log.read_text().splitlines() if log.exists() else []:
        test = json.loads(line)
        text = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")
        numbers = count(test["result"], text)
        totals = [a + b for a, b in zip(totals, numbers)]
        seen += 1
        name = test["name"].split(" / ")[-1]
        print("  %-34s %5d passed %3d failed%s  %6.1f s" % (
            name, numbers[0], numbers[1], f" {numbers[2]} skipped" if numbers[2] else "", test["duration"]))
        if numbers[1]:
            print(f"--- {name} ({test['result']}), the last lines of its log:")
            print("\n".join(text.rstrip().splitlines()[-TAIL_LINES:]))
            print("---", flush=True)
    if not seen:
        print(done.stdout)
        totals[1] += 1
    elif done.returncode and not totals[1]:
        print(done.stdout)
        totals[1] += 1
    print(f"   {time.monotonic() - begin:.0f} s", flush=True)
    return totals


def main():
    runs, words = [], sys.argv[1:]
    while words:
        end = words.index("--") if "--" in words else len(words)
        runs.append((words[0], words[1:end]))
        words = words[end + 1:]
    if not runs:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    totals = [sum(column) for column in zip(*(run(build, suites) for build, suites in runs))]
    print(f"{totals[0]} passed, {totals[1]} failed" + (f", {totals[2]} skipped" if totals[2] else ""))
    return 1 if totals[1] else 0


sys.exit(main())
