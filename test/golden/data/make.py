"""Writes the tables that test/data/sources.test.ts reads: the same rows as rows.jsonl, as Arrow and Parquet.

python3 make.py, with pyarrow 22 or later.
"""

import json
import subprocess
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


def kinds():
    """Every kind of column and encoding that these files are read with, in few bytes: what the fuzz tests damage."""
    import datetime
    import decimal

    rows = range(6)
    table = pa.table(
        {
            "flag": pa.array([None, True, False, True, None, False]),
            "small": pa.array([-1, 2, None, 4, 5, 6], pa.int8()),
            "large": pa.array([2**62, -1, None, 4, 5, 6], pa.int64()),
            "half": pa.array([0.5, 1, 2, 3, 4, 5], pa.float16()),
            "real": pa.array([i / 3 for i in rows], pa.float64()),
            "text": pa.array(["a", "", None, "漢字", "a", "a"]),
            "again": pa.array(["x", "y", "x", None, "y", "x"]).dictionary_encode(),
            "bytes": pa.array([b"\x00\xff", b"", None, b"a", b"b", b"c"], pa.binary()),
            "fixed": pa.array([b"ab", b"cd", None, b"ef", b"gh", b"ij"], pa.binary(2)),
            "price": pa.array([decimal.Decimal(f"{i}.25") for i in rows], pa.decimal128(9, 2)),
            "day": pa.array([datetime.date(2024, 1, 1 + i) for i in rows]),
            "when": pa.array([datetime.datetime(2024, 1, 1, 0, 0, i, i) for i in rows], pa.timestamp("us")),
            "numbers": pa.array([[1, None, 3], [], None, [4], [5, 6], [7]], pa.list_(pa.int32())),
            "deep": pa.array([[[1], []], [], None, [[2, 3]], [None], [[4]]], pa.list_(pa.list_(pa.int16()))),
            "person": pa.array([{"name": f"n{i}", "tags": ["t"] * i} if i % 2 else None for i in rows]),
            "map": pa.array([[("a", 1)], [], None, [("b", None)], [("c", 3), ("d", 4)], []], pa.map_("string", "int32")),
        }
    )
    plain = table.set_column(6, "again", table["again"].cast("string"))
    ways = [("kinds.arrow", None, pa.ipc.new_file), ("kinds.stream.arrow", "zstd", pa.ipc.new_stream)]
    for name, options, write_it in ways:
        with pa.OSFile(str(HERE / name), "wb") as f:
            with write_it(f, table.schema, options=pa.ipc.IpcWriteOptions(compression=options)) as w:
                w.write_table(table, max_chunksize=4)
    pq.write_table(plain, HERE / "kinds.snappy.parquet", row_group_size=4)
    encodings = {"small": "DELTA_BINARY_PACKED", "large": "DELTA_BINARY_PACKED", "real": "BYTE_STREAM_SPLIT"}
    encodings |= {"text": "DELTA_BYTE_ARRAY", "bytes": "DELTA_LENGTH_BYTE_ARRAY", "flag": "RLE"}
    pq.write_table(
        plain,
        HERE / "kinds.gzip.parquet",
        compression="gzip",
        use_dictionary=False,
        column_encoding=encodings,
        data_page_version="2.0",
        write_page_checksum=True,
    )


kinds()


def packed():
    """The rows of chat.jsonl and tokens.jsonl in Zstandard, as it is streamed; a frame with a checksum (zstd --check)."""
    for name in ("chat", "tokens"):
        text = (HERE / f"{name}.jsonl").read_bytes()
        with pa.CompressedOutputStream(pa.OSFile(str(HERE / f"{name}.zstd.jsonl.zst"), "wb"), "zstd") as f:
            f.write(text)
    text = (HERE / "chat.jsonl").read_bytes()
    frame = subprocess.run(["zstd", "-19", "--check", "-c"], input=text, stdout=subprocess.PIPE, check=True).stdout
    (HERE / "checksum.zst").write_bytes(frame)


packed()


def words():
    """Dictionaries that grow, and that are replaced, between the batches of a stream."""
    column = pa.dictionary(pa.int8(), pa.string())
    inner = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([("w", column), ("l", pa.list_(inner))])

    def batch(said, known):
        places = pa.array([known.index(w) if w else None for w in said], pa.int8())
        listed = pa.DictionaryArray.from_arrays(pa.array([0, len(known) - 1, 0], pa.int32()), pa.array(known))
        lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), listed)
        return pa.record_batch([pa.DictionaryArray.from_arrays(places, pa.array(known)), lists], schema=schema)

    for name, deltas in (("words.delta.arrow", True), ("words.replaced.arrow", False)):
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
        with pa.OSFile(str(HERE / name), "wb") as f, pa.ipc.new_stream(f, schema, options=options) as w:
            w.write_batch(batch(["a", "b", None], ["a", "b"]))
            w.write_batch(batch(["c", "a", "d"], ["a", "b", "c", "d"]))
            if not deltas:
                w.write_batch(batch(["z", "y", "z"], ["z", "y"]))


words()
