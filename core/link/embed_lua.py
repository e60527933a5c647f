"""Turn a Lua script into a C string of its name: redis_unit.lua gives redis_unit_lua. Comments and blank lines stay behind."""
import pathlib
import sys

source, target = map(pathlib.Path, sys.argv[1:])
lines = []
for line in source.read_text(encoding="ascii").splitlines():
    text = line.strip()
    if text and not text.startswith("--"):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'    "{escaped}\\n"')
target.write_text(
    f"/* Made from {source.name}. */\nstatic const char {source.name.replace('.', '_')}[] =\n" + "\n".join(lines) + ";\n")
