#!/usr/bin/env python3
"""documents - what the manual says is what the program does.

    documents.py APIUM ROOT           check
    documents.py APIUM ROOT --write   write docs/configuration.md anew

docs/configuration.md ends with the table of settings that `apium report --all` knows; docs/commands.md names every command
and exit code; the completion knows every command; every link between documents leads somewhere; what docs/workflows.md shows of a program is in samples/.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

MARK = "<!-- below this line: written by ./dev docs -->\n"
UNUSED = "accepted without effect"


def run(apium, *args):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("APIUM_", "CELERY_"))}
    done = subprocess.run([apium, *args], stdout=subprocess.PIPE, text=True, env=env, check=True)
    return done.stdout


def settings_table(apium):
    rows = [json.loads(line) for line in run(apium, "report", "--all", "--json").splitlines()]
    used = [r for r in rows if not (r["help"] or "").startswith(UNUSED)]
    unused = [r["name"] for r in rows if (r["help"] or "").startswith(UNUSED)]
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for row in used:
        value = json.dumps(row["value"], ensure_ascii=True).replace("|", "\\|")
        lines.append(f"| `{row['name']}` | `{value}` | {(row['help'] or '').replace('|', chr(92) + '|')} |")
    text = "\n".join(lines) + "\n"
    text += "\nAccepted, and without effect in apium, so that a configuration can be shared: "
    return text + ", ".join(f"`{name}`" for name in unused) + ".\n"


def complaints(apium, root):
    configuration = (root / "docs/configuration.md").read_text()
    if configuration.split(MARK)[-1].strip() != settings_table(apium).strip():
        yield "docs/configuration.md is not what the table of settings says: ./dev docs"
    help_text = run(apium, "--help")
    commands = re.findall(r"^  ([a-z]+) ", help_text.split("Commands:")[1], re.M)
    manual = (root / "docs/commands.md").read_text() + (root / "docs/man/apium.1").read_text()
    for command in commands:
        if f"{command}" not in manual:
            yield f"docs/commands.md does not name the command {command}"
        if not run(apium, command, "--help").startswith("Usage: "):
            yield f"apium {command} --help does not begin with the usage"
    if len(commands) < 6:
        yield f"--help lists {commands} only"
    for code in re.findall(r"APM_EXIT_\w+ = (\d+)", (root / "cli/cli.h").read_text()):
        if f"| {code} |" not in (root / "docs/commands.md").read_text():
            yield f"docs/commands.md does not name exit code {code}"
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            if not (page.parent / target).exists():
                yield f"{page.name}: there is no {target}"
    programs = [" ".join(p.read_text().split()) for p in (root / "samples").rglob("*.*") if p.suffix in (".c", ".py")]
    for block in re.findall(r"```(?:c|python)\n(.*?)```", (root / "docs/workflows.md").read_text(), re.S):
        if not any(" ".join(block.split()) in program for program in programs):
            yield f"docs/workflows.md shows what no sample has: {block.strip().splitlines()[0]}"
    for source in (p for folder in ("core", "client", "worker", "brokers", "backends", "workflows", "cli", "include", "samples")
                   for p in (root / folder).rglob("*.[ch]")):
        text = re.sub(r"\n\s*\*\s*", " ", source.read_text())
        for page, section in re.findall(r"docs/(\w+\.md)(?: \"([^\"]+)\")?", text):
            if not (root / "docs" / page).exists():
                yield f"{source.relative_to(root)}: there is no docs/{page}"
            elif section and f"## {section}" not in (root / "docs" / page).read_text():
                yield f"{source.relative_to(root)}: docs/{page} has no section \"{section}\""


def main():
    apium, root = sys.argv[1], pathlib.Path(sys.argv[2])
    page = root / "docs/configuration.md"
    if sys.argv[3:] == ["--write"]:
        page.write_text(page.read_text().split(MARK)[0] + MARK + "\n" + settings_table(apium))
        return 0
    found = list(complaints(apium, root))
    print("\n".join(found) if found else "the documents agree with the program")
    return 1 if found else 0


sys.exit(main())
