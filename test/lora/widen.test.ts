// An adapter with more room makes the change that it made, to the bit of its own numbers; what is beside them changes
// nothing yet.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { openPeft, writePeft } from '../../src/lora/peft.js';
import type { PeftFile } from '../../src/lora/peft-file.js';
import type { PeftPair } from '../../src/lora/peft-slots.js';
import { adapterSpec, isExpertTarget, loraScale } from '../../src/lora/spec.js';
import { writeWidened } from '../../src/lora/widen.js';
import { readConfig } from '../../src/model/config.js';
import { ops } from '../../src/native/ops.js';
import type { Tensor } from '../../src/native/tensor.js';

const root = mkdtempSync(join(tmpdir(), 'temper-widen-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const config = readConfig(join(packageRoot, 'models', 'nano'));
const meta = { baseModel: 'nano' };
const RANK = 2;
const EXTRA = 3;

interface Pair extends PeftPair {
  readonly A: Float32Array;
  readonly B: Float32Array;
}
function pairOf(file: PeftFile, { layer, target }: PeftPair): Pair {
  const pair = file.pair(layer, target);
  if (!pair) throw new Error(`no pair ${layer}.${target}`);
  return { ...pair, ...pair.read() };
}

it.each([false, true])('holds the same pairs and scales, rsLora %s', async (rsLora) => {
  const choice = { rank: RANK, alpha: 5, targets: ['attention', 'experts', 'router'], rsLora, dropout: 0 };
  const spec = adapterSpec(config, choice);
  const made = createAdapter(config, spec, { seed: 1 });
  made.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(made.tensors[i] as Tensor, 7 + i, -0.2, 0.2);
  });
  const [given, wide, fresh] = ['given', 'wide', 'fresh'].map((name) => join(root, `${name}-${rsLora}`)) as [
    string,
    string,
    string,
  ];
  await writePeft(made, given, meta);
  made.close();
  using from = openPeft(given, config);
  await writeWidened({ config, spec: from.spec, from, extra: EXTRA, seed: 3 }, wide, meta);
  await writeWidened({ config, spec: from.spec, from: null, extra: EXTRA, seed: 3 }, fresh, meta);
  using widened = openPeft(wide, config);
  using bare = openPeft(fresh, config);
  const is = RANK + EXTRA;
  let pairs = 0;
  for (const pair of from.pairs) {
    const [a, b, c] = [from, widened, bare].map((file) => pairOf(file, pair)) as [Pair, Pair, Pair];
    expect([b.rank, c.rank]).toEqual([is, is]);
    expect(loraScale(b, rsLora)).toBeCloseTo(loraScale(a, rsLora), 12);
    const experts = isExpertTarget(pair.target) ? config.num_local_experts : 1;
    const inputs = a.A.length / experts / RANK;
    for (let e = 0; e < experts; e++) {
      const own = b.A.subarray(e * is * inputs, (e * is + RANK) * inputs);
      expect(own).toEqual(a.A.subarray(e * RANK * inputs, (e + 1) * RANK * inputs));
      // What is added is what a new adapter has, and not nothing.
      const added = (x: Float32Array): Float32Array => x.subarray((e * is + RANK) * inputs, (e + 1) * is * inputs);
      expect(added(b.A)).toEqual(added(c.A));
      expect(added(b.A).some((x) => x !== 0)).toBe(true);
    }
    for (let row = 0; row * RANK < a.B.length; row++) {
      expect(b.B.subarray(row * is, row * is + RANK)).toEqual(a.B.subarray(row * RANK, (row + 1) * RANK));
      expect(b.B.subarray(row * is + RANK, (row + 1) * is)).toEqual(new Float32Array(EXTRA));
    }
    expect(c.B.every((x) => x === 0)).toBe(true);
    pairs++;
  }
  expect(pairs).toBe(7 * config.num_hidden_layers);
});
