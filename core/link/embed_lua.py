"""Turn a Lua script into a C string of its name: redis_unit.lua gives redis_unit_lua. Comments and blank lines stay behind. What stands
between "-- rarely:" and "-- always:" is left out of a second string, redis_unit_lua_usual."""
import pathlib
import sys

source, target = map(pathlib.Path, sys.argv[1:])
lines, usual, rarely, marked = [], [], False, False
for line in source.read_text(encoding="ascii").splitlines():
    text = line.strip()
    if text.startswith("-- rarely:"):
        rarely = marked = True
    elif text.startswith("-- always:"):
        rarely = False
    elif text and not text.startswith("--"):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'    "{escaped}\\n"')
        if not rarely:
            usual.append(lines[-1])
name = source.name.replace(".", "_")
strings = [(name, lines)] + ([(name + "_usual", usual)] if marked else [])
target.write_text(f"/* Made from {source.name}. */\n" + "".join(
    f"static const char {one}[] =\n" + "\n".join(text) + ";\n" for one, text in strings))
