"""What importing this plugin costs, and what its start-up hook costs everybody else.

Each command runs in a fresh interpreter, the commands taking turns, so that a busy machine slows them alike;
medians of wall time. Run it with the environment's Python: python projects/benchmarks/startup.py
"""

import argparse
import py_compile
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _options import read_options  # the file beside this one

HOOK = Path(__file__).resolve().parents[2] / "ealign_plugin" / "host" / "startup"


def seconds(python: str | Path, code: str) -> float:
    start = time.perf_counter()
    subprocess.run([str(python), "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def medians(
    commands: dict[str, tuple[str | Path, str]], rounds: int, *, warm_up: int = 1
) -> dict[str, float]:
    """name -> median seconds of (python, code), after rounds that fill the caches."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(warm_up + rounds):
        for name, command in commands.items():
            elapsed = seconds(*command)
            if turn >= warm_up:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def bare_python(folder: Path, with_hook: bool) -> Path:
    """A venv with nothing in it, or with nothing but the hook."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    if with_hook:
        packages = next(folder.glob("lib/python*/site-packages"))
        for name in ("ealign_startup.pth", "ealign_startup.py"):
            shutil.copy(HOOK / name, packages)
        py_compile.compile(str(packages / "ealign_startup.py"))  # as pip does with what it installs
    return folder / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pass-rounds", type=int, default=60, help="of `pass` with and without the hook")
    parser.add_argument("--import-rounds", type=int, default=7, help="of the imports; medians count")
    options = read_options(parser, pass_rounds=2, import_rounds=1)
    with tempfile.TemporaryDirectory() as scratch:
        plain = bare_python(Path(scratch, "plain"), with_hook=False)
        hooked = bare_python(Path(scratch, "hooked"), with_hook=True)
        idle = medians({"without": (plain, "pass"), "with": (hooked, "pass")}, options.pass_rounds)
    print(f"python -c pass without the hook   {1000 * idle['without']:8.2f} ms")
    print(f"python -c pass with the hook      {1000 * idle['with']:8.2f} ms")
    print(f"difference                        {1000 * (idle['with'] - idle['without']):8.2f} ms")

    warm_up = 0 if options.small else 1
    codes = ("import lavis", "import ealign_plugin", "import ealign_plugin, lavis")
    costs = medians({code: (sys.executable, code) for code in codes}, options.import_rounds, warm_up=warm_up)
    for code, cost in costs.items():
        print(f"{code:33} {1000 * cost:8.0f} ms")
    print(f"RATIO pass_with_hook_vs_without {idle['with'] / idle['without']:.3f}")
    print(f"RATIO import_both_vs_lavis {costs['import ealign_plugin, lavis'] / costs['import lavis']:.3f}")
    print(f"RATIO import_ealign_vs_lavis {costs['import ealign_plugin'] / costs['import lavis']:.3f}")


if __name__ == "__main__":
    main()
