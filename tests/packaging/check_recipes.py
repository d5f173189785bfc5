#!/usr/bin/env python3
"""Syntax and contents of the packaging recipes. Linters that are not installed are named as not used."""

import os
import re
import shutil
import subprocess
import sys
import types
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "tools" / "packaging"


class Recorder:
    """Stands in for spack.package: remembers what the recipe declares."""

    def __init__(self):
        self.calls = {}

    def directive(self, name):
        return lambda *args, **options: self.calls.setdefault(name, []).append((args, options))

    def module(self):
        module = types.ModuleType("spack.package")
        for name in ("license", "version", "variant", "depends_on", "conflicts"):
            setattr(module, name, self.directive(name))
        module.CMakePackage = type("CMakePackage", (), {
            "define": staticmethod(lambda name, value: f"-D{name}={value}"),
            "define_from_variant": lambda self, name, variant: f"-D{name}={variant}"})
        module.CudaPackage = type("CudaPackage", (), {"cuda_arch_values": ("90", "100")})
        return module


def version():
    return re.search(r"project\(lolcats-hpc VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def lint(*command):
    if shutil.which(command[0]) is None:
        print(f"not used: {command[0]} is not installed", file=sys.stderr)
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return "" if done.returncode == 0 else done.stdout + done.stderr


class Recipes(unittest.TestCase):
    def test_spack(self):
        recorder = Recorder()
        sys.modules["spack"] = types.ModuleType("spack")
        sys.modules["spack.package"] = recorder.module()
        namespace = {}
        source = RECIPES / "spack" / "package.py"
        exec(compile(source.read_text(), source, "exec"), namespace)  # noqa: S102
        self.assertIn(version(), [args[0] for args, _ in recorder.calls["version"]])
        needed = " ".join(args[0] for args, _ in recorder.calls["depends_on"])
        for package in ("mpi", "hdf5", "kokkos", "onednn", "fmt", "spdlog", "nlohmann-json", "cli11", "tomlplusplus", "xxhash", "nccl"):
            self.assertIn(package, needed)
        package = namespace["LolcatsHpc"]()
        package.run_tests = False
        package.spec = types.SimpleNamespace(satisfies=lambda spec: False)
        options = (ROOT / "CMakeLists.txt").read_text()
        for argument in package.cmake_args():
            self.assertIn(re.match(r"-D(\w+)=", argument).group(1), options)

    def test_containers(self):
        for name in ("Dockerfile", "lolcats.def"):
            text = (RECIPES / name).read_text()
            self.assertIn("debian:12", text)
            for option in re.findall(r"-D(LOLCATS_\w+)", text):
                self.assertIn(option, (ROOT / "CMakeLists.txt").read_text())
        self.assertIn(f"Version {version()}", (RECIPES / "lolcats.def").read_text())
        self.assertEqual(lint("hadolint", "tools/packaging/Dockerfile"), "")
        self.assertEqual(lint("spython", "recipe", "--parser", "singularity", "tools/packaging/lolcats.def"), "")

    @unittest.skipUnless("VERSION_ID=\"12\"" in Path("/etc/os-release").read_text(), "its packages are Debian 12's")
    def test_the_runtime_image_has_the_libraries(self):
        image = (RECIPES / "Dockerfile").read_text().split("FROM debian:12")[-1].split()
        program = Path(os.environ["LOLCATS_BIN"]) / "lolcats_convert"
        needed = set(re.findall(r"NEEDED.*\[(\S+)\]", output("readelf", "-d", program)))
        paths = dict(re.findall(r"(\S+) => (/\S+)", output("ldd", program)))
        for name in needed - {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6"}:
            package = output("dpkg", "-S", os.path.realpath(paths[name])).partition(":")[0]
            self.assertIn(package, {"libopenmpi3", *image}, name)  # that comes with openmpi-bin

    def test_citation(self):
        text = (ROOT / "CITATION.cff").read_text()
        self.assertIn(f"version: {version()}\n", text)
        self.assertIn("license: Apache-2.0\n", text)
        self.assertIn("Apache License\n", (ROOT / "LICENSE").read_text())
        self.assertIn(f"## {version()}", (ROOT / "CHANGELOG.md").read_text())
        self.assertEqual(lint("cffconvert", "--validate", "-i", "CITATION.cff"), "")


if __name__ == "__main__":
    unittest.main()
