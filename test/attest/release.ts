// A folder as an export leaves it, with the evidence of a gate, made by hand: small, and each part of it of the others.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { signFolder, writeAttestations } from '../../src/attest/attest.js';
import type { SigningKey, Trust } from '../../src/attest/keys.js';
import type { VerifyAttestationsOptions } from '../../src/attest/verify.js';
import { sha256 } from '../../src/base/digest.js';
import { IntegrityError } from '../../src/base/errors.js';
import { canonicalJson, type Json } from '../../src/verdict-log/canonical.js';

const named = (hex: string): string => `sha256:${hex}`;
const fileDigest = (path: string): string => named(sha256(readFileSync(path)));
export const TIME = '2026-11-29T06:00:00.000Z';
const BASE = 'b'.repeat(64);

export interface ReleaseOptions {
  readonly decision?: 'PASS' | 'FAIL' | 'INCONCLUSIVE' | 'ERROR';
  /** So that two releases differ. */
  readonly seed?: number;
  readonly weights?: number;
  readonly rows?: number;
}
/** Bytes that look like none in particular, the same for the same seed. */
export function noise(seed: number, count: number): Buffer {
  const bytes = Buffer.alloc(count);
  let x = (seed * 2654435761 + 12345) >>> 0;
  for (let i = 0; i < count; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}
const METRIC = {
  metric: 'harm',
  test: 'direct',
  slice: null,
  gates: true,
  direction: 'lower',
  n: 100,
  base: 0.01,
  adapter: 0.02,
  difference: 0.01,
  interval: { method: 'tango', level: 0.9, low: -0.01, high: 0.018 },
  margin: 0.02,
  cap: 0.05,
  verdict: 'PASS',
};

/** Digest of an adapter's folder, for these tests. */
export const adapterDigest = (dir: string): Promise<string> =>
  Promise.resolve(
    named(sha256(['adapter_config.json', 'adapter_model.safetensors'].map((n) => fileDigest(join(dir, n))).join())),
  );

/** What a gate would decide again: it passes by the first row, and holds every file to the lock. */
export async function redecide(gate: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    return again(gate);
  } catch (e) {
    throw new IntegrityError('gate_evidence', `${gate}: ${String(e)}`);
  }
}
function again(gate: string): Readonly<Record<string, unknown>> {
  const lock = JSON.parse(readFileSync(join(gate, 'gate.lock.json'), 'utf8')) as {
    files: { path: string; digest: string }[];
    suite: { digest: string };
  };
  for (const { path, digest } of lock.files)
    if (fileDigest(join(gate, 'suite', path)) !== digest) throw new Error(`${path}: is not what was locked`);
  const [first = ''] = readFileSync(join(gate, 'outcomes.jsonl'), 'utf8').split('\n');
  const { decision } = JSON.parse(first) as { decision: string };
  return {
    decision,
    metrics: [{ ...METRIC, verdict: decision }],
    suite: lock.suite.digest,
    lock: named(sha256(canonicalJson(lock as unknown as Json))),
    outcomes: fileDigest(join(gate, 'outcomes.jsonl')),
  };
}

/** Writes everything but signatures and statements. */
export async function makeFolder(
  dir: string,
  { decision = 'PASS', seed = 1, weights = 4096, rows = 40 }: ReleaseOptions = {},
): Promise<void> {
  const put = (name: string, data: string | Uint8Array): void => {
    mkdirSync(join(dir, name, '..'), { recursive: true });
    writeFileSync(join(dir, name), data);
  };
  put('adapter_config.json', '{"peft_type":"LORA","r":8}\n');
  put('adapter_model.safetensors', noise(seed, weights));
  put('README.md', '# An adapter\n');
  put('gate/suite/suite.yaml', 'name: tiny\nversion: "1"\n');
  put('gate/suite/prompts.jsonl', '{"id":"p1","prompt":"Hello?"}\n');
  put('gate/suite/policy.md', '# Policy\nC1: no phone numbers.\n');
  put('gate/report.json', '{"decision":"PASS"}\n');
  const lines = Array.from({ length: rows }, (_, i) =>
    JSON.stringify({
      ...(i === 0 ? { decision } : {}),
      metric: 'harm',
      slice: null,
      prompt: `p${i >> 1}`,
      sample: 0,
      arm: i % 2 ? 'adapter' : 'base',
      value: 0,
    }),
  );
  put('gate/outcomes.jsonl', `${lines.join('\n')}\n`);
  const files = ['suite.yaml', 'prompts.jsonl', 'policy.md'].map((path) => ({
    path,
    digest: fileDigest(join(dir, 'gate/suite', path)),
  }));
  const suite = files[0]?.digest ?? '';
  const lock = { schema: 'x', suite: { name: 'tiny', version: '1', digest: suite }, files };
  put('gate/gate.lock.json', JSON.stringify(lock, null, 1));
  put(
    'gate/decision.json',
    JSON.stringify(
      {
        schema: 'x',
        decision,
        exit: decision === 'PASS' ? 0 : 10,
        reasons: [],
        metrics: [{ ...METRIC, verdict: decision }],
        subject: {
          adapter: await adapterDigest(dir),
          base: named(BASE),
          tokenizer: named('c'.repeat(64)),
          chatFormat: named('d'.repeat(64)),
          mergeRecipe: null,
        },
        lock: named(sha256(canonicalJson(lock))),
        suite,
        outcomes: fileDigest(join(dir, 'gate/outcomes.jsonl')),
        judge: null,
        tool: { name: 'temper', version: '0' },
      },
      null,
      1,
    ),
  );
  const exported = ['adapter_config.json', 'adapter_model.safetensors', 'README.md'];
  put(
    'temper.json',
    JSON.stringify({
      version: 1,
      format: 'peft',
      run: '../no-such-run',
      base: { name: 'models/nano' },
      digests: { recipe: '1'.repeat(64), data: '2'.repeat(64), base: BASE, tokenizer: '3'.repeat(64) },
      files: Object.fromEntries(exported.map((name) => [name, sha256(readFileSync(join(dir, name)))])),
    }),
  );
}
/** Statements, and the signature over all of it. */
export async function makeRelease(dir: string, key: SigningKey, options: ReleaseOptions = {}): Promise<void> {
  await makeFolder(dir, options);
  await writeAttestations(join(dir, 'gate'), dir, key, { adapter: await adapterDigest(dir), time: TIME });
  await signFolder(dir, key);
}
export const optionsOf = (trust: Trust): VerifyAttestationsOptions => ({ trust, adapterDigest, redecide });
