"""Which column each field has, for fields of any name in any order."""

from dlt.common.normalizers.naming.snake_case import NamingConvention
from hypothesis import given
from hypothesis import strategies as st

from further_source.tables.fields import KINDS, Field, FieldColumns, StepKey

STEP = StepKey("Extract")
PARTS = st.sampled_from(
    ["Claim", "#", "%", "$", " ", "_", "__", "é", "保", "🚗", "confidence", "v_text", "2", ".", "(", "A", "a"]
)
LABELS = st.one_of(st.lists(PARTS, max_size=5).map("".join), st.text(max_size=8))


@given(
    st.lists(st.lists(st.tuples(LABELS, st.sets(st.sampled_from(KINDS))), max_size=6), min_size=1, max_size=4),
    st.sampled_from([1000, 63]),
    st.sampled_from([2, 400]),
)
def test_whatever_fields_are_called_no_two_ever_share_a_column(
    loads: list[list[tuple[str, set[str]]]], longest: int, max_fields: int
) -> None:
    recorded: list[Field] = []
    stored: dict[str, dict[str, str]] = {}
    before: dict[str | None, Field] = {}
    for load in loads:  # each knows of the others by what is recorded and stored
        columns = FieldColumns(recorded, stored, NamingConvention(longest), max_fields)
        for name, kinds in load:
            columns.field(STEP, name, sorted(kinds))
        recorded = columns.recorded
        for table, types in columns.wanted.items():
            stored.setdefault(table, {}).update(types)
        taken = [(field.rows_table, column) for field in recorded for column in field.columns]
        assert len(taken) == len(set(taken))
        assert all(stored[table][column] in KINDS for table, column in taken)
        after = {field.field: field for field in recorded}
        for field in before.values():
            if field.columns:
                assert field.columns.items() <= after[field.field].columns.items()
        before = after
