"""Writes rows.json: what pyarrow reads of the public conformance files, as a digest of their rows.

    python make.py SHARED_DATA          all files; SHARED_DATA holds parquet/ and arrow/
    python make.py SHARED_DATA FILE     the rows of one, a line each

A row is written as text that both sides make alike (test/data/conformance.test.ts): values are those that Temper gives
for a table, null left out of a row and of a struct. Made with pyarrow 25.0.1.
"""

import hashlib
import json
import os
import struct
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

SAFE = 2**53 - 1
MS_LIMIT = 8_640_000_000_000_000


class Null:
    """null that is written: in a list, and as the value of a map."""


NULL = Null()


def number(x):
    return "dNaN" if x != x else "d" + struct.pack(">d", x).hex()


def canon(v):
    if v is NULL:
        return "n"
    if isinstance(v, bool):
        return "t" if v else "f"
    if isinstance(v, int):
        return number(float(v)) if abs(v) <= SAFE else f"i{v}"
    if isinstance(v, float):
        return number(v)
    if isinstance(v, str):
        return "s" + v.encode().hex()
    if isinstance(v, list):
        return "[" + ",".join(canon(x) for x in v) + "]"
    keys = sorted((k.encode().hex(), x) for k, x in v.items() if x is not None)
    return "{" + ",".join(f"{k}:{canon(x)}" for k, x in keys) + "}"


def date_text(days):
    """ISO 8601, years beyond four digits as ECMAScript writes them (days → civil, proleptic Gregorian)."""
    z = days + 719468
    era, doe = divmod(z, 146097)
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    day, month = doy - (153 * mp + 2) // 5 + 1, mp + 3 if mp < 10 else mp - 9
    year = yoe + era * 400 + (1 if month <= 2 else 0)
    text = f"{year:04d}" if 0 <= year <= 9999 else f"{'-' if year < 0 else '+'}{abs(year):06d}"
    return f"{text}-{month:02d}-{day:02d}"


def moment(value, digits):
    per_second = 10**digits
    seconds, fraction = divmod(value, per_second)
    if not -MS_LIMIT <= (value * 1000) // per_second <= MS_LIMIT:
        return value
    days, second = divmod(seconds, 86400)
    text = f"{date_text(days)}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}."
    shown = f"{fraction * 10 ** (9 - digits):09d}"
    return text + shown[:3] + shown[3:].rstrip("0") + "Z"


def decimal(value):
    """A number where ECMAScript writes it with the same digits."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    if text in ("-0", ""):
        text = "0"
    x = float(text)
    if x == 0 or 1e-6 <= abs(x) < 1e21:
        short = format(Decimal(repr(x)), "f")
        short = short.rstrip("0").rstrip(".") if "." in short else short
        if short == text:
            return x
    return text


UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def is_text(t):
    return pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)


def is_bytes(t):
    return pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_binary_view(t)


def values(array, texts):
    """Values of an array; None: null. texts: bytes are text where they are UTF-8, as in Parquet files of before."""
    t = array.type
    n = len(array)
    if isinstance(t, pa.BaseExtensionType):
        stored = values(array.storage, texts)
        name = getattr(t, "extension_name", "")
        if name == "arrow.json":
            return [None if v is None else json_value(json.loads(v)) for v in stored]
        if name == "arrow.uuid":
            return [None if v is None else uuid(v) for v in stored]
        if name == "arrow.bool8":
            return [None if v is None else v != 0 for v in stored]
        return stored
    if pa.types.is_null(t):
        return [None] * n
    if pa.types.is_dictionary(t):
        inside = values(array.dictionary, texts)
        return [None if i is None else inside[i] for i in array.indices.to_pylist()]
    if pa.types.is_run_end_encoded(t):
        inside = values(array.values, texts)
        ends = array.run_ends.to_pylist()
        out, run = [], 0
        for i in range(array.offset, array.offset + n):
            while ends[run] <= i:
                run += 1
            out.append(inside[run])
        return out
    if pa.types.is_union(t):
        fields = [values(array.field(i), texts) for i in range(t.num_fields)]
        place = {code: i for i, code in enumerate(t.type_codes)}
        codes = array.type_codes.to_pylist()
        at = array.offsets.to_pylist() if t.mode == "dense" else range(n)
        return [fields[place[c]][k] for c, k in zip(codes, at)]
    valid = array.is_valid().to_pylist()
    if pa.types.is_struct(t):
        names = [t.field(i).name for i in range(t.num_fields)]
        fields = [values(array.field(i), texts) for i in range(t.num_fields)]
        return [{k: f[i] for k, f in zip(names, fields)} if valid[i] else None for i in range(n)]
    if pa.types.is_map(t):
        keys, items = values(array.keys, texts), values(array.items, texts)
        at = array.offsets.to_pylist()
        return [
            {key_text(keys[k]): listed(items[k]) for k in range(at[i], at[i + 1])} if valid[i] else None
            for i in range(n)
        ]
    if pa.types.is_fixed_size_list(t):
        inside, size = [listed(v) for v in values(array.values, texts)], t.list_size
        return [
            inside[(array.offset + i) * size : (array.offset + i + 1) * size] if valid[i] else None for i in range(n)
        ]
    if pa.types.is_list(t) or pa.types.is_large_list(t):
        inside, at = [listed(v) for v in values(array.values, texts)], array.offsets.to_pylist()
        return [inside[at[i] : at[i + 1]] if valid[i] else None for i in range(n)]
    if "list_view" in str(t):
        inside, at = [listed(v) for v in values(array.values, texts)], array.offsets.to_pylist()
        sizes = array.sizes.to_pylist()
        return [inside[at[i] : at[i] + sizes[i]] if valid[i] else None for i in range(n)]
    if pa.types.is_decimal(t):
        return [None if v is None else decimal(v) for v in array.to_pylist()]
    if pa.types.is_date32(t):
        days = array.view(pa.int32()).to_pylist()
        return [None if d is None else date_text(d) if abs(d) <= 100_000_000 else d for d in days]
    if pa.types.is_date64(t):
        return [None if v is None else moment(v, 3) for v in array.view(pa.int64()).to_pylist()]
    if pa.types.is_timestamp(t):
        return [None if v is None else moment(v, UNITS[t.unit]) for v in array.view(pa.int64()).to_pylist()]
    if pa.types.is_time32(t):
        return array.view(pa.int32()).to_pylist()
    if pa.types.is_time64(t) or pa.types.is_duration(t):
        return array.view(pa.int64()).to_pylist()
    if pa.types.is_interval(t):
        return [
            None if v is None else {"months": v.months, "days": v.days, "nanoseconds": v.nanoseconds}
            for v in array.to_pylist()
        ]
    if pa.types.is_fixed_size_binary(t):
        return [None if v is None else list(v) for v in array.to_pylist()]
    if is_bytes(t):
        return [None if v is None else bytes_value(v, texts) for v in array.to_pylist()]
    if is_text(t):
        return array.to_pylist()
    if pa.types.is_boolean(t) or pa.types.is_integer(t):
        return array.to_pylist()
    if pa.types.is_floating(t):
        return [None if v is None else float(v) for v in array.to_pylist()]
    raise ValueError(f"type {t}")


def json_value(v):
    if v is None:
        return NULL
    if isinstance(v, list):
        return [json_value(x) for x in v]
    return {k: json_value(x) for k, x in v.items()} if isinstance(v, dict) else v


def uuid(v):
    h = bytes(v).hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def bytes_value(v, texts):
    if texts:
        try:
            return v.decode()
        except UnicodeDecodeError:
            pass
    return list(v)


def listed(v):
    return NULL if v is None else v


def key_text(k):
    """A key as ECMAScript's String() gives it, of the kinds that the files have."""
    if isinstance(k, bool):
        return "true" if k else "false"
    if isinstance(k, float) and k.is_integer():
        return str(int(k))
    if isinstance(k, list):
        return ",".join(str(x) for x in k)
    return str(k)


def rows_of(batch, texts):
    names = batch.schema.names
    if len(set(names)) != len(names):
        raise ValueError("two columns of one name")
    columns = [values(batch.column(i), texts) for i in range(len(names))]
    for i in range(batch.num_rows):
        yield {k: c[i] for k, c in zip(names, columns)}


def batches(path):
    if "parquet" in path.parts:
        # 64 bits of nanoseconds, which INT96 becomes otherwise, do not hold its range.
        how = {"coerce_int96_timestamp_unit": "us", "arrow_extensions_enabled": True}
        with pq.ParquetFile(path, page_checksum_verification=True, **how) as f:
            yield from f.iter_batches(batch_size=4096)
        return
    with open(path, "rb") as f:
        if f.read(6) == b"ARROW1":
            f.seek(0)
            reader = pa.ipc.open_file(f)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
        else:
            f.seek(0)
            yield from pa.ipc.open_stream(f)


def geo(path):
    """Bytes that are no text, whatever they hold: only the file's own schema says so."""
    return "geospatial" in path.parts


def read(path):
    digest, count = hashlib.sha256(), 0
    try:
        for batch in batches(path):
            for row in rows_of(batch, "parquet" in path.parts and not geo(path)):
                digest.update(canon(row).encode() + b"\n")
                count += 1
        return {"rows": count, "sha256": digest.hexdigest()}
    except Exception as e:  # what it cannot read is said, whatever it is
        return {"refused": f"{type(e).__name__}: {e}".split("\n")[0][:160]}


def apart(path):
    """In a process of its own: a damaged file may end it."""
    said, say = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(say, json.dumps(read(path)).encode())
        os._exit(0)
    os.close(say)
    with os.fdopen(said) as f:
        text = f.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if status == 0 else {"refused": f"its process ended by signal {status & 127}"}


def main():
    root = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        path = Path(sys.argv[2]).resolve()
        for batch in batches(path):
            for row in rows_of(batch, "parquet" in path.parts and not geo(path)):
                print(canon(row))
        return
    out = {}
    patterns = ["parquet/**/*.parquet", "parquet/**/*.encrypted", "arrow/**/*.stream", "arrow/**/*.arrow_file"]
    for path in sorted(p for pattern in patterns for p in root.glob(pattern)):
        out[str(path.relative_to(root))] = apart(path)
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in out.items()]
    Path(__file__).with_name("rows.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
