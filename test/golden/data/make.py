"""Writes the tables that test/data/sources.test.ts reads: the same rows as rows.jsonl, as Arrow and Parquet.

python3 make.py, with pyarrow 22 or later.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

HERE = Path(__file__).parent


def chat_row(i):
    """Some rows think, some call a tool: a table gives every message every field, null where it has none."""
    messages = [{"role": "user", "content": f"Question {i}: [é, \"{{\", 漢]?"}]
    if i % 3 == 0:
        call = {"id": f"c{i}", "type": "function", "function": {"name": "look", "arguments": json.dumps({"n": i})}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{i}", "content": f"found {i}"})
    answer = {"role": "assistant", "content": f"Answer {i}."}
    if i % 2 == 0:
        answer["thinking"] = f"{i} is even"
    messages.append(answer)
    return {"messages": messages}


def write(name, rows, schema=None):
    (HERE / f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    table = pa.Table.from_pylist(rows, schema=schema)
    with pa.OSFile(str(HERE / f"{name}.arrow"), "wb") as f, pa.ipc.new_file(f, table.schema) as w:
        w.write_table(table, max_chunksize=100)
    with pa.OSFile(str(HERE / f"{name}.stream.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
        w.write_table(table, max_chunksize=100)
    pq.write_table(table, HERE / f"{name}.snappy.parquet", row_group_size=100)
    pq.write_table(table, HERE / f"{name}.zstd.parquet", compression="zstd", row_group_size=1000)


write("chat", [chat_row(i) for i in range(301)])
tokens = pa.schema([("tokens", pa.list_(pa.int64())), ("weights", pa.list_(pa.float32()))])
write("tokens", [{"tokens": [i, 2 * i + 1, 3], "weights": [0.0, 0.5, 1.0]} for i in range(7)], tokens)
feather.write_feather(pa.table({"tokens": [[1, 2]]}), HERE / "lz4.feather", compression="lz4")
