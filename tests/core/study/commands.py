"""What the clients of a study do: commands of :mod:`tests.second_client`, made up by Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.core.study.truth import NAMES, STATES

PICK = st.integers(0, 10**6)
FIELD = st.one_of(
    st.tuples(st.just("state"), st.sampled_from(STATES)),
    st.tuples(st.just("run_name"), st.sampled_from(NAMES)),
    st.tuples(st.just("note"), st.sampled_from([None, "a", "b", ["a"], {"a": 1}])),
    st.tuples(st.sampled_from(["mark", "score"]), st.sampled_from([0.5, 1.5, None, [2.0]])),
)
PARAMETER = st.tuples(st.just("x"), st.sampled_from([0.0, 3.0])) | st.tuples(
    st.just("items"), st.sampled_from([[1], [2]])
)
#: Enough to fill and to split the buckets of the tree of runs (30 each).
POINTS = st.integers(0, 5).flatmap(
    lambda first: st.integers(1, 40).map(lambda n: [float(x) for x in range(first, first + n)])
)
COMMAND = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(NAMES), POINTS),
    st.tuples(st.just("create"), st.sampled_from(NAMES), st.sampled_from([[1.0], [99.0]])),
    st.tuples(st.just("put"), PICK, FIELD),
    st.tuples(st.just("put"), PICK, FIELD),
    st.tuples(st.just("move"), PICK, PARAMETER),
    st.tuples(st.just("remove"), PICK, st.integers(1, 60)),
)
BD_COMMAND = st.one_of(
    st.tuples(st.just("bd_create"), st.sampled_from(NAMES), st.sampled_from([[1.0], [7.0, 8.0]])),
    st.tuples(st.sampled_from(["bd_put", "bd_set", "bd_update"]), PICK, FIELD),
    st.tuples(
        st.just("bd_call"),
        PICK,
        st.sampled_from([("start",), ("finish",), ("fail",), ("delete",), ("saveStepTimeStamp", 3)]),
    ),
)
COMMANDS = st.lists(COMMAND | BD_COMMAND, min_size=1, max_size=5)
