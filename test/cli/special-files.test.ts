// Every file that a command reads, with a FIFO or a device without an end in its place: a typed error, at once.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { temper } from './run.js';

const NANO = join(packageRoot, 'models', 'nano');
const POLICY = join(packageRoot, 'policies', 'contact', 'policy.md');
let dir: string;
const at = (name: string): string => join(dir, name);
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'special-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A copy of the nano model that links to its files. */
function model(name: string): string {
  mkdirSync(at(name), { recursive: true });
  for (const file of readdirSync(NANO)) copyFileSync(join(NANO, file), join(at(name), file));
  return at(name);
}
const generate = ['generate', '--model', 'm', 'hi'];
const rows = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n';

it.each([
  ['config.json', 'm/config.json', generate],
  ['generation_config.json', 'm/generation_config.json', ['model', 'inspect', 'm']],
  ['the weights', 'm/model.safetensors', generate],
  ['the index', 'm/model.safetensors.index.json', generate],
  ['tokenizer.json', 'm/tokenizer.json', generate],
  ['adapter_config.json', 'a/adapter_config.json', [...generate, '--adapter', 'a']],
  ['a recipe', 'r.yaml', ['train', 'r.yaml']],
  ['rows', 'rows.jsonl', ['data', 'check', 'rows.jsonl', '--tokenizer', NANO]],
  ['rows that are judged', 'rows.jsonl', ['screen', 'rows.jsonl', '--policy', POLICY, '--judge', 'm', '--out', 'v']],
  ['a policy', 'p.md', ['screen', 'rows.jsonl', '--policy', 'p.md', '--judge', 'm', '--out', 'v']],
  ['tokens', 'tokens.json', ['logits', '--model', 'm', '--tokens', 'tokens.json', '--out', 'l']],
])('%s', async (_, file, args) => {
  const before = process.cwd();
  for (const make of [
    (path: string) => execFileSync('mkfifo', [path]),
    (path: string) => symlinkSync('/dev/zero', path),
  ]) {
    rmSync(at('m'), { recursive: true, force: true });
    model('m');
    // Writing to the FIFO of the round before would wait for its reader.
    rmSync(at(file), { force: true });
    if (file !== 'rows.jsonl') writeFileSync(at('rows.jsonl'), rows);
    mkdirSync(dirname(at(file)), { recursive: true });
    make(at(file));
    process.chdir(dir);
    try {
      const ended = await temper(args);
      // What a folder says of itself beside the model may be passed over, but not waited for.
      if (file.endsWith('generation_config.json') && ended.code === 0) continue;
      // Notices may come before the error.
      expect(ended.stderr.trim().split('\n').at(-1)).toMatch(/^temper: .*regular/);
      expect(ended.code).toBe(2);
    } finally {
      process.chdir(before);
    }
  }
});
