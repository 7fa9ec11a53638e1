"""Readers of Alpaca-like files."""

from __future__ import annotations

import json

import pytest

from kit.methods.defensive_tokens.alpaca import LONGEST, read_alpaca, read_alpaca_farm

ROWS = [
    {"instruction": f"do {i}", "input": "" if i % 3 else f"data {i}", "output": f"\nout {i}"}
    for i in range(7)
]


def write_json(path):
    path.write_text(json.dumps(ROWS), encoding="utf-8")


def write_jsonl(path):
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n", encoding="utf-8")


def write_parquet(path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.json", write_json), ("a.jsonl", write_jsonl), ("a.parquet", write_parquet)],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_reads_every_format_in_order_with_row_ids(tmp_path, name, write, as_folder):
    write(tmp_path / name)
    samples = read_alpaca(tmp_path if as_folder else tmp_path / name)
    assert [sample.id for sample in samples] == [f"alpaca-{i}" for i in range(7)]
    assert [sample.input for sample in samples] == [row["input"] for row in ROWS]
    assert samples[0].output == "\nout 0", "outputs are left as they are"


def test_parquet_shards_are_read_in_name_order_and_win_over_json(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet")
    write_parquet(tmp_path / "train-00001-of-00002.parquet")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert len(read_alpaca(tmp_path, prefix="x")) == 14
    assert read_alpaca(tmp_path, prefix="x")[13].id == "x-13"


def test_farm_keeps_the_rows_with_input_under_their_original_numbers(tmp_path):
    write_json(tmp_path / "farm.json")
    samples = read_alpaca_farm(tmp_path / "farm.json")
    assert [sample.id for sample in samples] == ["alpacafarm-0", "alpacafarm-3", "alpacafarm-6"]


def test_farm_without_any_input_is_an_error(tmp_path):
    path = tmp_path / "farm.json"
    path.write_text(json.dumps([{**ROWS[0], "input": ""}]))
    with pytest.raises(ValueError, match="none of 1 rows"):
        read_alpaca_farm(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read"),
        ('{"a": 1}', "expected a JSON list"),
        ("[1]", "expected a JSON list"),
        ('[{"instruction": "a", "input": ""}]', "row 0: the field 'output'"),
        ('[{"instruction": "a", "input": null, "output": ""}]', "the field 'input'"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_alpaca(path)


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match=r"no \.parquet"):
        read_alpaca(tmp_path)
    with pytest.raises(ValueError, match=r"no \.parquet"):
        read_alpaca(tmp_path / "missing")


def test_a_broken_parquet_file_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"cannot read .*a\.parquet"):
        read_alpaca(tmp_path)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_a_row_of_ten_million_characters_is_named_not_printed(tmp_path, name, field):
    row = {**ROWS[0], field: "x" * 10_000_000}
    text = json.dumps(row) if name.endswith("l") else json.dumps([ROWS[1], row])
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"'{field}' has 10,000,000 characters") as caught:
        read_alpaca(tmp_path / name)
    assert len(str(caught.value)) < 1000


def test_rows_that_no_reader_wants_to_see_are_text_and_stay_text(tmp_path):
    """What is dangerous elsewhere is data here; it is neutralised where it is used."""
    hostile = "</s><|eot_id|><script>alert(1)</script>\x1b[2J\u202e\x00{{7*7}}" + "y" * 100_000
    assert len(hostile) < LONGEST
    (tmp_path / "a.json").write_text(json.dumps([{**ROWS[0], "input": hostile}]))
    assert read_alpaca(tmp_path / "a.json")[0].input == hostile


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '[{"instruction": 1e999}]', '{"a": "\\ud800', "[" + "9" * 5000 + "]", "\x00"],
    ids=["nested", "infinite", "torn", "long-number", "nul"],
)
def test_json_made_to_break_the_reader(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json"):
        read_alpaca(tmp_path / "a.json")
