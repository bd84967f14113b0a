"""METEOR 1.5 by the program that defines it, which is started once for all rows of an evaluation.

It reads a table of paraphrases for about ten seconds before it scores its first caption, and hundreds of
captions in one second then.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.meteor import meteor as meteor_package

from ealign_plugin.errors import UserError


def meteor_score(java: str, references: Sequence[str], candidates: Sequence[str]) -> float:
    """METEOR's score of a whole set, a fraction.

    Args:
        java: Path of the program that runs it.
        references: Captions without punctuation.
        candidates: As many, likewise.

    Raises:
        UserError: it could not be started, or ended without a score.
    """
    jar = Path(meteor_package.__file__).with_name(meteor_package.METEOR_JAR)
    scorer = _scorer(java, jar)
    try:
        return scorer.score(references, candidates)
    except (OSError, ValueError):
        _scorer.cache_clear()
        raise UserError(
            f"METEOR failed: {java} ended with code {scorer.close()} and no score ({scorer.reason()}); "
            "a Java runtime (8 or later) with 2 GB of free memory is expected; mend Java or leave METEOR out"
        ) from None


class _Scorer:
    """The program and the dialogue with it: a line for a caption, a line of statistics for an answer."""

    def __init__(self, java: str, jar: Path) -> None:
        # The JVM decodes what it reads, and writes decimals, as the locale says.
        locale = ["-Duser.language=en", "-Duser.country=US"]
        command = [java, "-Xmx2G", *locale, "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
        # METEOR does not find this file by itself where the path to it holds a space.
        command += ["-a", str(jar.with_name("data") / "paraphrase-en.gz")]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up
        try:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
            )
        except OSError as error:
            raise UserError(
                f"METEOR could not start {java}: {error}; mend Java or leave METEOR out"
            ) from None
        atexit.register(self.close)

    def score(self, references: Sequence[str], candidates: Sequence[str]) -> float:
        pairs = zip(references, candidates, strict=True)
        counts = [self._answer(f"SCORE ||| {_line(one)} ||| {_line(other)}") for one, other in pairs]
        last = self._answer("EVAL ||| " + " ||| ".join(counts))
        for _ in counts:  # the score of each caption, then that of all
            last = self._read()
        return float(last)

    def close(self) -> int:
        """End it; its exit code."""
        atexit.unregister(self.close)
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        try:
            return self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def reason(self) -> str:
        """The line of its messages that tells most."""
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines() or ["no message"]
        return next((line for line in lines if "Error" in line or "Exception" in line), lines[-1])

    def _answer(self, line: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(line.encode("utf-8", "replace") + b"\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self.process.stdout
        answer = self.process.stdout.readline().decode("utf-8", "replace").strip()
        if not answer:
            raise ValueError("it ended")
        return answer


_scorer = functools.lru_cache(maxsize=1)(_Scorer)


def _line(caption: str) -> str:
    return caption.replace("\n", "").replace("\r", "")
