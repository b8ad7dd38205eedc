"""Writes datasets/: folders as Hugging Face's `datasets` 5.0.1 writes them, and extensions.arrow of pyarrow 25.0.1.

    python make_datasets.py
"""

import json
import shutil
import tempfile
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, Json, List, Value, load_dataset

here = Path(__file__).parent
out = here / "datasets"
shutil.rmtree(out, ignore_errors=True)


def row(i):
    return {
        "messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i} é"}],
        "tools": [{"type": "function", "function": {"name": f"f{i}", "parameters": {"b": 1, "a": [i]}}}],
        "reasoning_effort": ["low", None, "high"][i % 3],
    }


features = Features(
    {
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "tools": Json(),
        "reasoning_effort": Value("string"),
    }
)
rows = [row(i) for i in range(7)]
whole = Dataset.from_list(rows, features=features)
# Rows that were picked and put in another order, in two shards.
picked = whole.select([6, 2, 4, 0])
DatasetDict({"train": picked, "test": whole.select([1])}).save_to_disk(out / "saved", num_shards={"train": 2, "test": 1})

with tempfile.TemporaryDirectory() as tmp:
    for split, some in {"train": rows[:5], "test": rows[5:]}.items():
        Path(tmp, f"my-test-{split}.jsonl").write_text("".join(json.dumps({"messages": r["messages"]}) + "\n" for r in some))
    files = {s: str(Path(tmp, f"my-test-{s}.jsonl")) for s in ("train", "test")}
    loaded = load_dataset("json", data_files=files, cache_dir=str(Path(tmp, "cache")))
    # What is derived of a split lies beside it, and is no split.
    loaded["train"].map(lambda r: {"n": len(r["messages"])}, num_proc=1)
    cached = Path(loaded["train"].cache_files[0]["filename"]).parent
    shutil.copytree(cached, out / "cache", ignore=shutil.ignore_patterns("*.lock"))
for info in out.glob("**/dataset_info.json"):
    text = info.read_text()
    assert "/tmp" not in text or info.parent.name == "cache"
    said = json.loads(text)
    said.pop("download_checksums", None)
    info.write_text(json.dumps(said, indent=1) + "\n")

table = pa.table(
    {
        "j": pa.array(['{"b": 1.50, "a": [null]}', None, '"x"'], pa.json_()),
        "u": pa.array([bytes(range(16)), None, bytes(16)], pa.uuid()),
        "b": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
    }
)
with pa.OSFile(str(here / "extensions.arrow"), "wb") as f, pa.ipc.new_file(f, table.schema) as w:
    w.write_table(table)
variant = pa.struct([pa.field("metadata", pa.binary()), pa.field("value", pa.binary())])
field = pa.field("v", variant, metadata={"ARROW:extension:name": "arrow.parquet.variant", "ARROW:extension:metadata": ""})
with pa.OSFile(str(here / "variant.arrow"), "wb") as f, pa.ipc.new_file(f, pa.schema([field])) as w:
    w.write_batch(pa.record_batch([pa.array([{"metadata": b"\x01\0\0", "value": b"\0"}], variant)], pa.schema([field])))
