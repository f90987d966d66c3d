"""The generator passes the suite that every generator must pass."""

from motoko_core.testing import GeneratorConformance


class TestNice(GeneratorConformance):
    generator = "nice"
    options = {"slots": 8, "poll_interval_s": 0.05}
