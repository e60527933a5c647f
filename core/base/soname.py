"""Print the name by which a shared library is loaded: soname.py NAME FOLDER COMPILER... looks for libNAME.so in the folder, then where the
compiler does."""
import pathlib
import re
import subprocess
import sys

name, folder, *compiler = sys.argv[1:]
path = pathlib.Path(folder) / f"lib{name}.so"
if not path.exists():
    path = subprocess.run([*compiler, f"-print-file-name=lib{name}.so"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
tags = subprocess.run(["readelf", "-d", path], check=True, stdout=subprocess.PIPE, text=True, env={"LC_ALL": "C"}).stdout
print(re.search(r"\(SONAME\).*\[(.+)\]", tags)[1])
