"""Names of columns and tables, made of labels as they are printed."""

import psycopg2
import pytest
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.normalizers.naming.snake_case import NamingConvention as SnakeCase
from dlt.common.normalizers.naming.sql_ci_v1 import NamingConvention as Sql
from hypothesis import example, given, settings
from hypothesis import strategies as st

from further_source.tables.names import column_name, free_name, path_name, table_name

DUCKDB, POSTGRES, BIGQUERY = SnakeCase(65_536), SnakeCase(63), SnakeCase(300)
NAMINGS = [SnakeCase(), DUCKDB, POSTGRES, BIGQUERY, Sql(63)]
SIGNS = ["#", "%", "$", "€", "£", "¥", "&", "@", "+"]
LONG = "Has any insurer ever cancelled, declined to renew or imposed special terms on your {} in the last five years?"
# As BigQuery's documentation has them, of which the first six are of its older pages too.
BIGQUERY_RESERVES = (
    "_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER", "_CHANGE_SEQUENCE_NUMBER",
    "_CHANGE_TYPE", "_CHANGE_TIMESTAMP",
)  # fmt: skip

words = st.sampled_from(
    ["Policy", "policyNumber", "VIN", "No.", "1st", "2024", "Insured's", "e-mail", "_dlt_", "_row", "__", "xmin"]
) | st.sampled_from(
    ["Größe", "Prämie", "цена", "τιμή", "保険番号", "保険", "보험", "رقم الوثيقة", "מספר", "प्रीमियम", "🚗", "🏠"]
)
units = st.sampled_from(["(%)", "($)", "[€]", "(m²)", "°C", "/ yr", "in kg", "¥/月", "＃", "％", "±", "№", *SIGNS])
punctuation = st.sampled_from(
    ["", " ", ".", ":", "?", "!", "...", "—", "*", "(", ")", "/", "\n", "\u200b", "\u202e", "_"]
)
labels = (
    st.lists(words | units | punctuation, max_size=8).map(" ".join)
    | st.text(max_size=12)
    | words.map(lambda word: word * 30)
)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Claim #", "claim_number"),
        ("Paid ($)", "paid_dollar"),
        ("Policy No.", "policy_no"),
        ("Rate (%)", "rate_percent"),
        ("$ Amount", "dollar_amount"),
        ("Prime (€)", "prime_euro"),
        ("￥", "yen"),
        ("#", "number"),
        ("＃", "number"),
        ("%", "percent"),
        ("+/-", "plus"),
        ("A&B", "a_and_b"),
        ("C++", "c_plus_plus"),
        ("E-Mail @ Work", "e_mail_at_work"),
        ("R&D Cost ($)", "r_and_d_cost_dollar"),
        ("100%", "_100_percent"),
        ("Name *", "name"),
        (" (Paid) ", "paid"),
        ("Location Address:", "location_address"),
        ("policyNumber", "policy_number"),
        ("Policy\nNumber", "policy_number"),
        ("1st loss", "_1st_loss"),
        ("µg", "ug"),
        ("Größe", "grosse"),
        ("保険番号", "bao_xian_fan_hao"),
        ("🚗", "red_car"),
        ("select", "select"),
        ("_row", "_row"),
        ("amount__confidence", "amount_confidence"),
        *((label, "unnamed") for label in ("", " ", "—", "...", "_", "__", "\u200b", "!?", "*")),
        ("_dlt_id", "dlt_id"),
        ("_DLT_load_id", "dlt_load_id"),
        ("_PARTITIONTIME", "partitiontime"),
        ("_Table_suffix", "table_suffix"),
        ("__ROOT__x", "_root_x"),
        ("XMin", "x_min"),
        ("xmin", "xmin_2"),
    ],
)
def test_labels_become_names(label: str, name: str) -> None:
    for naming in NAMINGS[:4]:
        assert column_name(label, naming) == name


def test_different_scripts_and_signs_stay_apart() -> None:
    labels = [
        "Größe",
        "保険番号",
        "保険",
        "🚗",
        "🚗🚗",
        "🚙",
        "цена",
        "τιμή",
        *SIGNS,
        "unnamed",
        "C",
        "C+",
        "C++",
        "AB",
        "A&B",
    ]

    assert len({column_name(label, DUCKDB) for label in labels}) == len(labels)


@given(words)
def test_signs_keep_labels_apart(word: str) -> None:
    for pattern in ("{} {}", "{}{}", "{} ({})", "{1} {0}"):
        names = [column_name(pattern.format(word, sign), POSTGRES) for sign in ["", *SIGNS]]
        assert len(set(names)) == len(names)


@settings(deadline=None, max_examples=300)
@given(labels, st.sampled_from(NAMINGS))
@example("_dlt_" * 40, POSTGRES)
@example("__" + "xmin", POSTGRES)
@example("9" * 100, POSTGRES)
def test_a_name_can_be_used_anywhere(label: str, naming: NamingConvention) -> None:
    name = column_name(label, naming)

    assert name
    assert name.isascii()
    assert "__" not in name
    assert not name.lower().startswith(("_dlt", *map(str.lower, BIGQUERY_RESERVES)))
    assert column_name(label, naming) == name
    assert column_name(name, naming) == name
    for ending in ("", "__confidence", "__v_text", "__v_double", "__v_bool", "_999__confidence"):
        whole = name + ending
        assert naming.normalize_path(whole) == whole
        assert len(whole) <= (naming.max_length or len(whole))
    assert naming.normalize_identifier(name) == name


@settings(deadline=None, max_examples=300)
@given(st.lists(labels, min_size=1, max_size=5), st.sampled_from(NAMINGS))
@example(["metadata", "9" * 70], POSTGRES)
@example(["_dlt_id"], POSTGRES)
def test_a_path_of_keys_can_be_used_anywhere(keys: list[str], naming: NamingConvention) -> None:
    name = path_name(keys, naming)

    assert name.isascii()
    assert not name.lower().startswith(("_dlt", *map(str.lower, BIGQUERY_RESERVES)))
    for ending in ("", "__v_bigint", "_999__v_double"):
        whole = name + ending
        assert naming.normalize_path(whole) == whole
        assert len(whole) <= (naming.max_length or len(whole))


@settings(deadline=None, max_examples=300)
@given(st.none() | labels, st.sampled_from(NAMINGS))
def test_a_table_has_a_name_that_can_be_used_anywhere(label: str | None, naming: NamingConvention) -> None:
    name = table_name("rows_", label, "step_7", naming)

    assert name.startswith("rows_")
    assert name > "rows_"
    assert name.isascii()
    assert "__" not in name
    assert naming.normalize_tables_path(name) == name
    assert naming.normalize_tables_path(f"{name}_999") == f"{name}_999"
    assert len(f"{name}_999___99") <= min(naming.max_length or 150, 150)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Extract Claims", "rows_extract_claims"),
        ("EXTRACT-CLAIMS!", "rows_extract_claims"),
        ("Über", "rows_uber"),
        ("1st", "rows_1st"),
        ("_row", "rows_row"),
        ("x__y", "rows_x_y"),
        ("../../etc", "rows_etc"),
        ("Cost ($)", "rows_cost_dollar"),
        *((label, "rows_step_7") for label in (None, "", " ", "!!!", "_")),
    ],
)
def test_step_names_become_tables(label: str | None, name: str) -> None:
    assert table_name("rows_", label, "step_7", POSTGRES) == name


def test_keys_in_objects_become_paths() -> None:
    assert path_name(["metadata", "broker", "Licence #"], POSTGRES) == "metadata__broker__licence_number"
    assert path_name(["metadata", "xmin"], POSTGRES) == "metadata__xmin"
    assert path_name(["xmin"], POSTGRES) == "xmin_2"
    assert path_name(["metadata", ""], POSTGRES) == "metadata__unnamed"
    assert path_name(["metadata", "a__b"], POSTGRES) != path_name(["metadata", "a", "b"], POSTGRES)


def test_long_labels_that_differ_anywhere_stay_apart_and_readable() -> None:
    labels = [
        LONG.format("property insurance"),
        LONG.format("liability insurance"),
        LONG.format("liability insurance!"),
    ]
    labels += [label + " (details)" for label in labels]
    labels += ["a" * length for length in (48, 51, 54, 62, 63, 64)]

    names = [column_name(label, POSTGRES) for label in labels]

    assert len(set(names)) == len(names)
    assert names[0].startswith("has_any_insurer_ever")
    assert names[0].endswith("the_last_five_years")
    assert column_name(labels[0], BIGQUERY) == (
        "has_any_insurer_ever_cancelled_declined_to_renew_or_imposed_special_terms_on_your_property_insurance"
        "_in_the_last_five_years"
    )


def test_a_name_that_is_taken_gets_a_number() -> None:
    assert free_name("name", []) == "name"
    assert free_name("name", ["Name"]) == "name_2"
    assert free_name("Name", {"name", "name_2", "NAME_3"}) == "Name_4"
    assert free_name("name", ["name_2"]) == "name"


def test_postgres_takes_the_names_of_what_it_reserves(postgres_url: str) -> None:
    labels = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid", "oid", "user", "select", "_row", "", "保険番号" * 30]
    columns = ", ".join(f'"{column_name(label, POSTGRES)}" text' for label in labels)

    connection = psycopg2.connect(postgres_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TEMPORARY TABLE of_names ({columns})")
    finally:
        connection.close()
