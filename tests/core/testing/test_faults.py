"""The conformance suite notices what is wrong with a generator: one run over several faulty ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from tests.processes import ROOT

FAULTY = '''
import attrs
from motoko_core.testing import GeneratorConformance

class Faulty(GeneratorConformance):
    generator = "bash"
    options = {"slots": 4}
    many = 6

    @classmethod
    def make_generator(cls, directory):
        generator = super().make_generator(directory)
        cls.spoil(generator)
        return generator

    @classmethod
    def change_ends(cls, generator, change):
        ended = generator.ended
        async def changed():
            async for end in ended():
                for other in change(end):
                    yield other
        generator.ended = changed

class TestOptimist(Faulty):
    """Everything went well."""
    @classmethod
    def spoil(cls, generator):
        cls.change_ends(generator, lambda end: [attrs.evolve(end, exit_code=0, reason=None)])

class TestStutterer(Faulty):
    """Tells each end twice."""
    @classmethod
    def spoil(cls, generator):
        cls.change_ends(generator, lambda end: [end, end])

class TestForgetful(Faulty):
    """Follows nothing of what others have submitted."""
    @classmethod
    def spoil(cls, generator):
        async def adopt(batch):
            return set()
        generator.adopt = adopt

class TestGreedy(Faulty):
    """Claims to follow what was never submitted."""
    timeout_s = 3.0  # its last words are waited for
    @classmethod
    def spoil(cls, generator):
        adopt = generator.adopt
        async def more(batch):
            await adopt(batch)
            return {task.tag for task, _ in batch}
        generator.adopt = more

class TestConfused(Faulty):
    """Answers in another order."""
    @classmethod
    def spoil(cls, generator):
        submit = generator.submit
        async def confused(batch):
            return list(reversed(await submit(batch)))
        generator.submit = confused

class TestTwice(Faulty):
    """Its runs are executed twice."""
    spoil = lambda *_: None
    @classmethod
    def prepare(cls, directory):
        text = "echo twice >> ../../../executed/$BLACKDYNAMITE_RUN_ID"
        path = directory / "work" / "launch.sh"
        path.write_text(text + "\\n" + path.read_text())

class TestNever(Faulty):
    """Its runs end without having been executed."""
    spoil = lambda *_: None
    @classmethod
    def prepare(cls, directory):
        (directory / "work" / "launch.sh").write_text("exit 0\\n")
'''

#: class -> tests that must fail, tests that must not
EXPECTED = {
    "TestOptimist": ("exit_code_of_the_script killed jobs_that_are_cancelled_at_once", "test_success"),
    "TestStutterer": ("test_success", ""),
    "TestForgetful": ("a_generator_that_is_gone", "test_success"),
    "TestGreedy": ("a_generator_that_is_gone", ""),
    "TestConfused": ("test_success", ""),
    "TestTwice": ("many_runs_of_a_study", ""),
    "TestNever": ("many_runs_of_a_study", ""),
}


@attrs.frozen
class Outcome:
    failed: set[str]
    passed: set[str]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """What became of the tests of each class."""
    directory = tmp_path_factory.mktemp("faulty")
    (directory / "test_faulty.py").write_text(FAULTY)
    (directory / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    wanted = [
        f"({name} and ({' or '.join(f'{failing} {passing}'.split())}))"
        for name, (failing, passing) in EXPECTED.items()
    ]
    words = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider", "-p", "no:cov"]
    done = subprocess.run(
        [*words, "-k", " or ".join(wanted), str(directory)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\w+)::(\S+)", done.stdout, re.MULTILINE)
    return {
        name: Outcome(
            failed={test for outcome, owner, test in found if owner == name and outcome != "PASSED"},
            passed={test for outcome, owner, test in found if owner == name and outcome == "PASSED"},
        )
        for name in EXPECTED
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_a_faulty_generator_fails_where_it_should(outcomes: Mapping[str, Outcome], name: str) -> None:
    failing, passing = EXPECTED[name]
    outcome = outcomes[name]
    for word in failing.split():
        assert any(word in test for test in outcome.failed), (word, outcome)
        assert not any(word in test for test in outcome.passed), (word, outcome)
    for word in passing.split():
        assert any(word in test for test in outcome.passed), (word, outcome)


def test_the_suite_needs_nothing_but_pytest() -> None:
    """A plugin's author may have another plugin for asynchronous tests, or none."""
    sources = Path(ROOT, "motoko_core", "testing").glob("*.py")
    imported = {word for path in sources for word in re.findall(r"^import (\w+)", path.read_text(), re.M)}
    assert "pytest" in imported
    assert not {"pytest_asyncio", "anyio", "hypothesis"} & imported
    code = "import sys, motoko_core.interfaces, motoko_core.launch.daemon; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
