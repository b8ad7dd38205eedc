// The few things that must work on every supported Node: load the addon here and in a worker, run an op, tokenise, one
// forward pass, a store.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isMainThread, Worker } from 'node:worker_threads';
import { loadTokenizer } from '../dist/harmony/tokenizer.js';
import { openCheckpoint } from '../dist/model/checkpoint.js';
import { scoreTokens } from '../dist/model/gpt-oss.js';
import { initCheckpoint } from '../dist/model/init.js';
import { ops } from '../dist/native/ops.js';
import { Scope } from '../dist/native/tensor.js';
import { openStore } from '../dist/store/store.js';

function runOp() {
  const s = new Scope();
  try {
    const a = s.from(Float32Array.of(1, 2, 3));
    ops.add(a, s.from(Float32Array.of(10, 20, 30)));
    assert.deepEqual([...a.toFloat32()], [11, 22, 33]);
  } finally {
    s.close();
  }
}

function tokenise() {
  const tokenizer = loadTokenizer(fileURLToPath(new URL('../models/nano', import.meta.url)));
  const text = 'Where is my parcel? Grüße, 世界 <|end|>';
  const ids = tokenizer.encode(text);
  assert.ok(ids.length > 5);
  assert.equal(tokenizer.decode(ids), text);
  return ids;
}

async function forward(ids) {
  const folder = mkdtempSync(join(tmpdir(), 'temper-smoke-'));
  try {
    await initCheckpoint(join(folder, 'model'), 'nano', { seed: 1 });
    const model = openCheckpoint(join(folder, 'model'));
    try {
      const scores = scoreTokens(model, null, Int32Array.from(ids), { precision: 'bf16' });
      assert.ok(scores.length >= ids.length - 1 && scores.every(Number.isFinite));
    } finally {
      model.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** SQLite as this Node has it, or better-sqlite3; a Node that has neither says so. */
async function keep() {
  const folder = mkdtempSync(join(tmpdir(), 'temper-smoke-'));
  try {
    const store = await openStore(join(folder, 'store.db'));
    const { rows } = await store.change(async (db) => ({ rows: await db.selectFrom('reviews').selectAll().execute() }));
    assert.deepEqual(rows, []);
    await store.close();
    return store.driver;
  } catch (e) {
    assert.equal(e.code, 'sqlite_missing');
    return 'no SQLite';
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

runOp();
if (isMainThread) {
  await forward(tokenise());
  const driver = await keep();
  const [major = 0] = process.versions.node.split('.').map(Number);
  if (major >= 22) assert.equal(driver === 'no SQLite', false);
  const code = await new Promise((done, fail) =>
    new Worker(new URL(import.meta.url)).on('error', fail).on('exit', done),
  );
  assert.equal(code, 0);
  process.stdout.write(`Node ${process.versions.node}: addon, op, tokenizer, forward pass, worker, ${driver}\n`);
}
