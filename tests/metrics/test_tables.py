"""The table of figures, as it is printed."""

from ealign_plugin.metrics.tables import format_table


def test_fractions_are_percentages_and_the_rest_stays():
    rows = [
        {"context": "head", "samples": 100, "bleu4": 0.10871, "meteor": None, "words": 12.34},
        {"context": "[refined] :ok:", "samples": 7, "bleu4": 0.0, "meteor": 0.2, "entity_f1": 1.0},
    ]
    columns = ["context", "samples", "bleu4", "meteor", "entity_f1", "words"]
    assert format_table(rows, columns).splitlines() == [
        "| context        | samples | BLEU-4 | METEOR | entity F1 | words |",
        "|----------------|---------|--------|--------|-----------|-------|",
        "| head           |     100 |   10.9 |      - |         - |  12.3 |",
        "| [refined] :ok: |       7 |    0.0 |   20.0 |     100.0 |     - |",
    ]


def test_decimals_and_unknown_columns():
    assert format_table([{"auc_hard": 0.98765}], ["auc_hard"], decimals=2).splitlines()[-1] == "|    98.77 |"


def test_many_columns_stay_on_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    columns = [f"figure_{i}" for i in range(60)]
    assert len(format_table([dict.fromkeys(columns, 0.5)], columns).splitlines()) == 3


def test_no_rows_still_have_headings():
    assert format_table([], ["rouge"]).splitlines()[0] == "| ROUGE-L |"
