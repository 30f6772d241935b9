"""A notebook to play with what was loaded: how sure each field is, and what would go straight through.

    uv run --with marimo --with altair marimo run examples/marimo/further.py -- --file further_demo.duckdb

opens the demo's file. Without `--file` that is `further.duckdb`; `--destination NAME --dataset NAME` opens a dataset of
another destination, with credentials as dlt finds them. `marimo edit` in place of `marimo run` lets you change it.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="What was loaded")

with app.setup:
    import os
    import re
    from pathlib import Path

    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")  # nobody is told what is looked at

    import altair
    import dlt
    import marimo as mo


@app.cell
def _():
    mo.md("""
    # What was loaded

    Choose a field and a threshold: what would go straight through, and which cells would a person look at? Nothing here
    is written anywhere. Values are shown, so mind who looks on.
    """)
    return


@app.cell
def _():
    # Opens the dataset. A DuckDB file is opened to read only, so that nothing below can change it.
    _given = {"file": "further.duckdb", "dataset": "further_data", **mo.cli_args().to_dict()}
    dataset_name = _given["dataset"]
    if "destination" in _given:
        _destination, _place = _given["destination"], _given["destination"]
    else:
        _place = Path(_given["file"]).absolute()
        mo.stop(not _place.is_file(), mo.md(f"There is no file `{_place}`: load something, or name it by `--file`."))
        _destination = dlt.destinations.duckdb({"database": str(_place), "read_only": True})
    dataset = dlt.dataset(_destination, dataset_name)
    mo.md(f"`{dataset_name}` in `{_place}`")
    return dataset, dataset_name


@app.cell
def _(dataset):
    def ask(query):
        """Rows as dicts of a query in DuckDB's SQL, which dlt writes in the destination's."""
        asked = dataset.query(query, query_dialect="duckdb")
        return [dict(zip(asked.columns, row, strict=True)) for row in asked.fetchall()]

    def same(column, value):
        """The condition that a column has a value, which may be any text that a document has."""
        return f"{column} IS NULL" if value is None else f"{column} = '" + value.replace("'", "''") + "'"

    return ask, same


@app.cell
def _(ask, same):
    # Steps and fields, the least sure first.
    names = ask(
        """
        SELECT step_name, field, AVG(confidence) AS mean
        FROM cells WHERE _deleted IS NULL GROUP BY 1, 2 ORDER BY 3, 1, 2
        """
    )
    mo.stop(not names, mo.md("Nothing is loaded yet."))
    step = mo.ui.dropdown(
        {"(all steps)": "1 = 1", **{str(one["step_name"]): same("step_name", one["step_name"]) for one in names}},
        value="(all steps)",
        label="step",
    )
    return names, step


@app.cell
def _(names, same, step):
    _fields = [one["field"] for one in names if step.value in ("1 = 1", same("step_name", one["step_name"]))]
    field = mo.ui.dropdown(
        {"(all fields)": "1 = 1", **{str(name): same("field", name) for name in _fields}},
        value="(all fields)",
        label="field",
    )
    mo.hstack([step, field], justify="start", wrap=True)
    return (field,)


@app.cell
def _(names):
    threshold = mo.ui.slider(0, 1, 0.01, value=0.8, include_input=True, debounce=True, label="threshold")
    threshold if names else None
    return (threshold,)


@app.cell
def _(ask, field, step, threshold):
    # What goes straight through.
    chosen = f"_deleted IS NULL AND {step.value} AND {field.value}"
    [_cells] = ask(
        f"""
        SELECT COUNT(*) AS cells, COUNT(CASE WHEN confidence >= {threshold.value} THEN 1 END) AS through
        FROM cells WHERE {chosen}
        """
    )
    [_documents] = ask(
        f"""
        SELECT COUNT(*) AS documents, COUNT(CASE WHEN doubtful = 0 THEN 1 END) AS through FROM (
            SELECT COUNT(*) - COUNT(CASE WHEN confidence >= {threshold.value} THEN 1 END) AS doubtful
            FROM cells WHERE {chosen} GROUP BY workflow_id, workflow_execution_id
        ) AS documents
        """
    )

    def _share(part, whole):
        return f"{part / whole:.1%}" if whole else "none"

    mo.hstack(
        [
            mo.stat(
                _share(_cells["through"], _cells["cells"]),
                label="of cells go straight through",
                caption=f"{_cells['through']:,} of {_cells['cells']:,}",
                bordered=True,
            ),
            mo.stat(
                _share(_documents["through"], _documents["documents"]),
                label="of documents, all of whose cells do",
                caption=f"{_documents['through']:,} of {_documents['documents']:,}",
                bordered=True,
            ),
            mo.stat(
                f"{_cells['cells'] - _cells['through']:,}",
                label="cells are left for a person to look at",
                bordered=True,
            ),
        ],
        widths="equal",
    )
    return (chosen,)


@app.cell
def _(ask, chosen, threshold):
    # How many cells have which confidence.
    _counts = ask(
        f"""
        SELECT FLOOR(confidence * 50) / 50 AS confidence, COUNT(*) AS cells
        FROM cells WHERE {chosen} AND confidence IS NOT NULL GROUP BY 1 ORDER BY 1
        """
    )
    _bars = [{**one, "to": one["confidence"] + 0.02} for one in _counts]
    _histogram = (
        altair.Chart(altair.Data(values=_bars))
        .mark_bar()
        .encode(
            x=altair.X("confidence:Q", bin="binned", title="confidence", scale=altair.Scale(domain=[0, 1])),
            x2=altair.X2("to:Q", title=""),
            y=altair.Y("cells:Q"),
            color=altair.condition(
                f"datum.confidence >= {threshold.value - 0.001}", altair.value("#0b62a8"), altair.value("#b04a00")
            ),
            tooltip=[altair.Tooltip("confidence:Q", format=".2f"), "cells:Q"],
        )
    )
    _rule = (
        altair.Chart(altair.Data(values=[{"at": threshold.value}]))
        .mark_rule(strokeDash=[4, 4])
        .encode(x=altair.X("at:Q", title=""))
    )
    mo.ui.altair_chart(
        (_histogram + _rule).properties(height=180, width="container"), chart_selection=False, legend_selection=False
    )
    return


@app.cell
def _(ask, chosen, threshold):
    # The least sure of those that do not go through.
    _worst = ask(
        f"""
        SELECT confidence, field, value, row_index, workflow_id, workflow_execution_id
        FROM cells WHERE {chosen} AND (confidence IS NULL OR confidence < {threshold.value})
        ORDER BY COALESCE(confidence, -1), workflow_execution_id, row_index, field LIMIT 100
        """
    )
    mo.vstack(
        [
            mo.md("## The worst cells\n\nUp to 100 that do not go straight through, those without a confidence first."),
            mo.ui.table(_worst, selection=None, page_size=10) if _worst else mo.md("None: all go through."),
        ]
    )
    return


@app.cell
def _(dataset_name):
    # The queries of docs/queries.md, those of the recipes left out: they need functions of one's own.
    _page = Path(__file__).parents[2] / "docs" / "queries.md"
    _found = re.findall(r"([^\n]+)\n\n```sql\n(.*?)```", _page.read_text(encoding="utf-8"), re.DOTALL)
    queries = {
        title: query.replace("further_data.", f"{dataset_name}.")
        for title, query in _found
        if "amount_of" not in query and "date_of" not in query
    }
    query_name = mo.ui.dropdown(queries, value=next(iter(queries)), label="query", full_width=True)
    mo.vstack(
        [
            mo.md("## Ask it yourself\n\nThe documentation's queries, in DuckDB's SQL. Change one, or write your own."),
            query_name,
        ]
    )
    return (query_name,)


@app.cell
def _(query_name):
    editor = mo.ui.code_editor(query_name.value, language="sql", min_height=120, debounce=False).form(
        submit_button_label="Run"
    )
    editor
    return (editor,)


@app.cell
def _(dataset, editor, query_name):
    # As it stands, in the destination's own SQL.
    def _answer(query):
        with dataset.sql_client as client, client.execute_query(query) as cursor:
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchmany(1000)]

    try:
        rows = _answer(editor.value or query_name.value)
        _shown = mo.ui.table(rows, selection=None, page_size=10) if rows else mo.md("No rows.")
    except Exception as error:
        rows = None
        _shown = mo.callout(mo.plain_text(str(error)), kind="warn")
    _shown
    return (rows,)


if __name__ == "__main__":
    app.run()
