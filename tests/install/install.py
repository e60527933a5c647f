"""An installed tree is enough to build a C program, a C++ program and a module, with pkg-config alone."""
import os
import pathlib
import shutil
import subprocess
import unittest

import harness

HERE = pathlib.Path(__file__).parent
WARN = ["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-pedantic"]


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(harness.folder("install"))
        env = dict(os.environ, DESTDIR=str(cls.root))
        subprocess.run(["meson", "install", "-C", os.environ["APIUM_TEST_BUILD"], "--no-rebuild", "--quiet"], check=True, env=env,
                       stdout=subprocess.DEVNULL)
        pc = next(cls.root.rglob("apium.pc"))
        cls.env = dict(os.environ, PKG_CONFIG_SYSROOT_DIR=str(cls.root), PKG_CONFIG_PATH=str(pc.parent))
        cls.lib = next(cls.root.rglob("libapium.so")).parent
        cls.command = next(cls.root.rglob("bin/apium"))

    def flags(self, *what):
        return subprocess.run(["pkg-config", *what, "apium"], check=True, env=self.env, capture_output=True,
                              text=True).stdout.split()

    def build(self, compiler, source, out, *more):
        sources = source if isinstance(source, list) else [source]
        flags = [f for f in self.flags("--cflags", "--libs")]
        subprocess.run([*compiler, *WARN, "-o", out, *sources, *more, *flags, f"-Wl,-rpath,{self.lib}"], check=True)

    def test_a_c_program(self):
        for standard in ("c99", "c11", "gnu17"):
            with self.subTest(standard):
                program = self.root / f"program-{standard}"
                self.build(["cc", f"-std={standard}"], HERE / "program.c", program, "-lcjson")
                self.run_program(program)

    def test_the_samples(self):
        samples = pathlib.Path(harness.ROOT) / "samples"
        self.build(["cc", "-std=gnu11", "-Wno-pedantic"], samples / "tasks.c", self.root / "tasks.so", "-shared", "-fPIC")
        program = self.root / "wordcount"
        self.build(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wno-pedantic"],
                   [samples / "local.c", *(samples / "wordcount").glob("*.c")], program, "-lcjson")
        text = self.root / "text"
        text.write_text("one two two\n")
        done = subprocess.run([program, text], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"2 +two\n")

    @unittest.skipUnless(shutil.which("c++") or os.environ.get("APIUM_TEST_STRICT"), "no C++ compiler")
    def test_a_cxx_program(self):
        for standard in ("c++11", "c++17", "c++20"):
            with self.subTest(standard):
                program = self.root / f"program-{standard}"
                self.build(["c++", f"-std={standard}", "-x", "c++"], HERE / "program.c", program, "-lcjson")
                self.run_program(program)

    def run_program(self, program):
        done = subprocess.run([program], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"^42 42 \d+\.\d+\.\d+$")

    def test_a_module_in_c_and_in_cxx(self):
        for name, compiler in (("c", ["cc", "-std=c99"]), ("cxx", ["c++", "-std=c++17", "-x", "c++"])):
            if not shutil.which(compiler[0]) and not os.environ.get("APIUM_TEST_STRICT"):
                continue
            with self.subTest(name):
                module = self.root / f"module-{name}.so"
                self.build(compiler, HERE / "module.c", module, "-shared", "-fPIC")
                url = f"sqlite:///{self.root}/{name}.db"
                worker = harness.Worker(url, url, module=str(module))
                worker.start()
                try:
                    done = harness.apium("call", "m.hello", "--queue", "m", "--wait", broker=url, backend=url)
                finally:
                    worker.stop()
                self.assertEqual(done.stdout.strip(), '"opened"', done.stderr)


if __name__ == "__main__":
    harness.main()
