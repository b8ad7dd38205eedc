// Every file that a command reads, with a FIFO, a device without an end or a folder in its place: a typed error, at
// once, that says what is there.
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
  copyFileSync(POLICY, join(dir, 'policy.md'));
  mkdirSync(join(dir, 'a'));
  writeFileSync(
    join(dir, 'good.yaml'),
    `model: { base: ${NANO} }\ndata: { train: [{ path: train.jsonl }] }\ntrain: { steps: 1, ` +
      'rowsPerStep: 1, lr: 1e-3 }\n',
  );
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

it.each(['tokenizer_config.json', 'special_tokens_map.json', 'chat_template.jinja', 'README.md'])(
  '%s beside a model is not read, so that nothing waits for it',
  async (file) => {
    rmSync(at('m'), { recursive: true, force: true });
    model('m');
    rmSync(at(`m/${file}`), { force: true });
    execFileSync('mkfifo', [at(`m/${file}`)]);
    for (const args of [
      ['model', 'inspect', at('m'), '--full'],
      ['generate', '--model', at('m'), '--max-tokens', '2', 'hi'],
    ])
      expect([0, 20]).toContain((await temper(args)).code);
  },
);

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
  ['golden rows', 'golden.jsonl', ['screen', 'rows.jsonl', '--policy', 'policy.md', '--judge', 'm', '--out', 'v']],
  ['prompts', 'prompts.jsonl', ['generate', '--model', 'm', '--prompts', 'prompts.jsonl', '--out', 'v']],
  ['rows of a recipe', 'train.jsonl', ['train', 'good.yaml']],
  ['a record of a run', 'run/run.json', ['export', 'run', '--out', 'x']],
  ['what an export says', 'b/temper.json', ['verify', 'b']],
  ['tokens', 'tokens.json', ['logits', '--model', 'm', '--tokens', 'tokens.json', '--out', 'l']],
])('%s', async (_, file, args) => {
  const before = process.cwd();
  for (const make of [
    (path: string) => execFileSync('mkfifo', [path]),
    (path: string) => symlinkSync('/dev/zero', path),
    (path: string) => mkdirSync(path),
  ]) {
    rmSync(at('m'), { recursive: true, force: true });
    model('m');
    // Writing to the FIFO of the round before would wait for its reader.
    rmSync(at(file), { recursive: true, force: true });
    if (file !== 'rows.jsonl') {
      rmSync(at('rows.jsonl'), { recursive: true, force: true });
      writeFileSync(at('rows.jsonl'), rows);
    }
    mkdirSync(dirname(at(file)), { recursive: true });
    make(at(file));
    process.chdir(dir);
    try {
      const ended = await temper(args);
      // Notices may come before the error; what is odd about a model is told and no error.
      const told = file.endsWith('generation_config.json') ? ended.stdout : ended.stderr.trim().split('\n').at(-1);
      expect(told).toContain(file.split('/').at(-1));
      expect(told).toMatch(/regular file|a folder/);
      expect([2, 40]).toContain(file.endsWith('generation_config.json') ? 2 : ended.code);
    } finally {
      process.chdir(before);
    }
  }
});
