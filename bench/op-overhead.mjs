// node bench/op-overhead.mjs: what one op call costs from TypeScript beyond its arithmetic: handles looked up and held,
// contract checked, table called. Median of 31 rounds of 20,000 calls on tensors of one element. Needs the build (npm
// run build).
import { cpus } from 'node:os';
import { ops } from '../dist/native/ops.js';
import { Scope } from '../dist/native/tensor.js';

const scope = new Scope();
const one = (...shape) => scope.zeros('f32', shape);
const [a, b] = [one(1), one(1)];
const [y, h, x, w, A, B] = Array.from({ length: 6 }, () => one(1, 1));

function median(run) {
  const rounds = Array.from({ length: 31 }, () => {
    const from = process.hrtime.bigint();
    for (let i = 0; i < 20_000; i++) run();
    return Number(process.hrtime.bigint() - from) / 1000 / 20_000;
  });
  return rounds.sort((p, q) => p - q)[15];
}
const cases = [
  ['add, 2 arguments', () => ops.add(a, b)],
  [
    'swiglu_fwd, 4 arguments',
    (() => {
      const [out, z] = [one(1, 1), one(1, 2)];
      return () => ops.swiglu_fwd(out, z, 1.702, 7);
    })(),
  ],
  [
    'linear_fwd with LoRA, 12 arguments, its arithmetic included',
    () => ops.linear_fwd(y, h, x, w, null, A, B, 1, 0, 0, 0, 0),
  ],
];
for (const [name, run] of cases) {
  median(run);
  const microseconds = Number(median(run).toFixed(3));
  const row = { bench: 'op overhead', case: name, microseconds, node: process.versions.node, cpu: cpus()[0]?.model };
  process.stdout.write(`${JSON.stringify(row)}\n`);
}
scope.close();
