"""Turn a Lua script into an apm_redis_script: redis_unit.lua gives redis_unit_script. Comments and blank lines stay behind. What stands
between "-- rarely:" and "-- always:" is left out of a second one, redis_unit_usual_script."""
import hashlib
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
        lines.append(text + "\n")
        if not rarely:
            usual.append(lines[-1])


def script(name, lines):
    sha = hashlib.sha1("".join(lines).encode()).hexdigest()
    text = [line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in lines]
    return f'static const apm_redis_script {name}_script = {{\n    "{sha}",\n' + "\n".join(f'    "{line}"' for line in text) + "\n};\n"


target.write_text(f"/* Made from {source.name}. */\n" + script(source.stem, lines) + (script(source.stem + "_usual", usual) if marked else ""))
