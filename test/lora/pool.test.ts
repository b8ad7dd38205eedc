// Adapters in a pool: the bits of those that lie by themselves, whatever comes, goes and moves around them.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { type Adapter, createAdapter } from '../../src/lora/adapter.js';
import { readPeft, readPeftInPieces, writePeft } from '../../src/lora/peft.js';
import { LoraPool, type Resident } from '../../src/lora/pool.js';
import { type AdapterChoice, adapterSpec, LORA_TARGETS } from '../../src/lora/spec.js';
import { PRESETS } from '../../src/model/init.js';
import { ops } from '../../src/native/ops.js';
import { memoryStats, Scope } from '../../src/native/tensor.js';

const config = PRESETS.nano;
const root = mkdtempSync(join(tmpdir(), 'temper-pool-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const choices: readonly Partial<AdapterChoice>[] = [
  { rank: 2, targets: ['attention'] },
  { rank: 3, alpha: 5, targets: ['attention', 'experts'], rsLora: true },
  { rank: 8, targets: ['experts', 'router'], layers: [1] },
  { rank: 1, targets: ['router', 'q_proj'] },
];
const folders = await Promise.all(
  choices.map(async (choice, i) => {
    const adapter = createAdapter(
      config,
      adapterSpec(config, { rank: 2, alpha: 4, targets: ['attention'], rsLora: false, dropout: 0, ...choice }),
      { seed: i },
    );
    adapter.params.write(adapter.params.toFloat32().map((x, j) => x || Math.sin(i + j)));
    const folder = join(root, `a${i}`);
    await writePeft(adapter, folder, { baseModel: 'nano' });
    adapter.close();
    return folder;
  }),
);
const alone: readonly Adapter[] = folders.map((folder) => readPeft(folder, config));
afterAll(() => {
  for (const a of alone) a.close();
});

const same = (a: ArrayBufferView, b: ArrayBufferView): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));
const pairs: readonly (readonly { readonly A: Float32Array; readonly B: Float32Array }[])[] = alone.map((a) =>
  a.model.layers.flatMap((l) =>
    LORA_TARGETS.flatMap((t) => (l[t] ? [{ A: l[t].A.toFloat32(), B: l[t].B.toFloat32() }] : [])),
  ),
);

/** The same as bf16, to nearest even. */
function rounded(values: Float32Array): Uint16Array {
  using s = new Scope('workspace');
  const [from, to] = [s.empty('f32', [values.length]), s.empty('bf16', [values.length])];
  from.write(values);
  ops.cast(to, from);
  return to.read() as Uint16Array;
}
/** What an op reads of a resident through the tables, against the adapter by itself. */
function check(resident: Resident, i: number, params = resident.pool.params.toFloat32()): void {
  const { pool, row } = resident,
    wanted = pairs[i]?.values();
  for (const [layer, targets] of alone[i]?.model.layers.entries() ?? [])
    for (const target of LORA_TARGETS) {
      const pair = targets[target],
        at = pool.layers[layer]?.[target],
        own = resident.layers[layer]?.[target],
        [a = 0, b = 0, rank = 0] = at ? (at.table.read() as Int32Array).subarray(3 * row) : [];
      expect(rank).toBe(pair?.A.shape.at(-2) ?? 0);
      expect(own?.scale).toBe(pair?.scale);
      if (!pair) continue;
      const bits = wanted?.next().value;
      if (!bits || !own) throw new Error('a pair is missing');
      expect(at?.scales.toFloat32()[row]).toBe(Math.fround(pair.scale));
      expect(same(params.subarray(16 * a, 16 * a + pair.A.numel), bits.A)).toBe(true);
      expect(same(params.subarray(16 * b, 16 * b + pair.B.numel), bits.B)).toBe(true);
      if (pool.rounded) {
        const narrow = pool.rounded.read() as Uint16Array;
        expect(same(narrow.slice(16 * a, 16 * a + pair.A.numel), rounded(bits.A))).toBe(true);
        expect(same(narrow.slice(16 * b, 16 * b + pair.B.numel), rounded(bits.B))).toBe(true);
      }
      expect(same(own.A.toFloat32(), bits.A)).toBe(true);
      expect(same(own.B.toFloat32(), bits.B)).toBe(true);
    }
}

describe('LoraPool', () => {
  it('holds what is there after any comings and goings, in the memory of the most at once', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 7 }), { minLength: 4, maxLength: 10 }), (steps) => {
        const before = memoryStats().live.adapter;
        using pool = new LoraPool(config, 'cpu', () => {}, steps.length % 2 === 0);
        const held: (readonly [Resident, number])[] = [];
        for (const step of steps) {
          if (step < 4) {
            const folder = folders[step] ?? '';
            held.push([pool.add((storage) => readPeft(folder, config, { storage })), step]);
          } else if (held.length > 0) {
            const [[resident] = held[0] as readonly [Resident, number]] = held.splice(step % held.length, 1);
            pool.remove(resident);
          }
          const params = held[0]?.[0].pool.params.toFloat32();
          for (const [resident, i] of held) check(resident, i, params);
          expect(new Set(held.map(([r]) => r.row)).size).toBe(held.length);
        }
        for (const [resident] of held) pool.remove(resident);
        expect(memoryStats().live.adapter).toBe(before);
      }),
      { numRuns: 12, seed: 3 },
    );
  });

  it('keeps its tables where a newcomer fits, and says when they move', () => {
    let moves = 0;
    using pool = new LoraPool(config, 'cpu', () => moves++);
    const add = (i: number): Resident => pool.add((storage) => readPeft(folders[i] ?? '', config, { storage }));
    const a = add(1),
      b = add(1);
    const tables = a.pool;
    moves = 0;
    pool.remove(b);
    const c = add(1); // in the gap of b
    expect(moves).toBe(0);
    expect(c.pool).toBe(tables);
    add(2); // a higher rank and another target, and no room
    expect(moves).toBeGreaterThan(0);
    expect(a.pool).not.toBe(tables);
    check(a, 1);
  });

  it('takes one in piece by piece while others go, and nothing of one that is given up', () => {
    const before = memoryStats().live.adapter;
    using pool = new LoraPool(config);
    const add = (i: number): Resident => pool.add((storage) => readPeft(folders[i] ?? '', config, { storage }));
    const adding = (i: number): Generator<void, Resident> =>
      pool.adding((storage) => readPeftInPieces(folders[i] ?? '', config, { storage }));
    const a = add(0),
      b = add(1);
    const coming = adding(2);
    expect(coming.next().done).toBe(false);
    expect(() => add(3)).toThrow(expect.objectContaining({ code: 'bad_argument' }));
    pool.remove(a);
    pool.remove(b); // all that were there are gone, the memory of the one that comes is not
    let pieces = 1,
      piece = coming.next();
    for (; !piece.done; piece = coming.next()) pieces++;
    expect(pieces).toBe((alone[2]?.entries.length ?? 0) / 2);
    check(piece.value, 2);
    const given = adding(1);
    given.next();
    given.return(piece.value);
    check(piece.value, 2);
    pool.remove(piece.value);
    expect(memoryStats().live.adapter).toBe(before);
  });

  it('is as before when reading fails', () => {
    using pool = new LoraPool(config);
    const a = pool.add((storage) => readPeft(folders[0] ?? '', config, { storage }));
    expect(() => pool.add((storage) => readPeft(join(root, 'none'), config, { storage }))).toThrow(/none/);
    const failing = (): never => {
      throw new Error('torn');
    };
    expect(() =>
      pool.add((storage) => {
        readPeft(folders[2] ?? '', config, { storage }).close();
        return failing();
      }),
    ).toThrow('torn');
    check(a, 0);
  });
});
