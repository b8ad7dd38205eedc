// Names and texts of files are data: no command lets them drive a terminal or make lines of their own.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { commands } from '../../src/cli/registry.js';
import { temper } from './run.js';

/** Sets the title, clears the screen, turns the writing round, begins a line. */
const EVIL = 'x\x1b]0;title\x07\x1b[2J\x9b31m\u202e\nFAKE: done';
const NANO = join(packageRoot, 'models', 'nano');
const POLICY = join(packageRoot, 'policies', 'contact', 'policy.md');
let dir: string;
let before: string;
const q = (text: string): string => JSON.stringify(text);
beforeAll(() => {
  before = process.cwd();
  dir = mkdtempSync(join(tmpdir(), 'hostile-'));
  process.chdir(dir);
  cpSync(NANO, EVIL, { recursive: true });
  // What a model says of itself is data too.
  const generation = join(EVIL, 'generation_config.json');
  writeFileSync(generation, JSON.stringify({ [EVIL]: 1 }));
  cpSync(NANO, 'm', { recursive: true });
  const rows = readFileSync(join(packageRoot, 'datasets', 'tickets', 'train.jsonl'), 'utf8')
    .split('\n')
    .slice(0, 4);
  writeFileSync(`${EVIL}.jsonl`, `${rows.join('\n')}\n`);
  writeFileSync(
    `bad${EVIL}.jsonl`,
    `{${q(EVIL)}: 1}\n{"messages": [{"role": ${q(EVIL)}, "content": "x"}]}\nnot json ${EVIL.replace('\n', '')}\n`,
  );
  writeFileSync('prompts.jsonl', `{"id": ${q(EVIL)}, "prompt": ${q(EVIL)}}\n`);
  writeFileSync('texts.jsonl', `{"id": ${q(EVIL)}, "text": ${q(EVIL)}}\n`);
  writeFileSync('tokens.json', '{"tokens": [[1, 2, 3]]}');
  writeFileSync(
    `r${EVIL}.yaml`,
    `about: ${q(EVIL)}\nmodel: { base: m }\ndata: { train: [{ path: ${q(`${EVIL}.jsonl`)} }], ` +
      `eval: [{ path: ${q(`${EVIL}.jsonl`)} }] }\n` +
      'train: { rowsPerStep: 2, lr: 1e-3, steps: 1 }\ngate: off\n',
  );
  writeFileSync(`unknown${EVIL}.yaml`, `${q(EVIL)}: 1\nmodel: { ${q(EVIL)}: 2 }\n`);
});
afterAll(() => {
  process.chdir(before);
  rmSync(dir, { recursive: true, force: true });
});

const R = `r${EVIL}.yaml`;
const OUT = `out${EVIL}`;
/** In this order: some need what others make. */
const lines: readonly (readonly [name: string, ...args: string[]])[] = [
  ['train', R, '--out', OUT],
  ['train', R, '--out', OUT],
  ['train', R, '--resume', '--out', `none${EVIL}`],
  ['train', `unknown${EVIL}.yaml`],
  ['train', R, '--set', `${EVIL}=1`],
  ['train', R, '--set', `model.${EVIL}=1`],
  ['train', `missing${EVIL}.yaml`],
  ['eval', OUT, '--limit', '1', '--max-tokens', '3'],
  ['eval', OUT, '--adapter', `none${EVIL}`],
  ['export', OUT, '--out', `e${EVIL}`],
  ['export', OUT, '--out', `e${EVIL}`],
  ['export', `none${EVIL}`, '--out', 'x'],
  ['gate', `none${EVIL}`, '--suite', `s${EVIL}.yaml`],
  ['gate fetch', `none${EVIL}`],
  ['gate merge', `none${EVIL}`, '--out', `g${EVIL}`],
  ['gate probe', `none${EVIL}`, '--suite', `s${EVIL}.yaml`, '--attack', `a${EVIL}.jsonl`],
  ['gate prove', '--suite', `s${EVIL}.yaml`, '--model', `none${EVIL}`, '--out', `g${EVIL}`],
  ['gate lock', `s${EVIL}.yaml`, '--out', `l${EVIL}`],
  ['gate decide', `none${EVIL}`, '--suite', `s${EVIL}.yaml`],
  ['gate power', '--margin', EVIL],
  ['key rotate', `none${EVIL}`, '--key', `k${EVIL}`],
  ['sign', `none${EVIL}`, '--key', `k${EVIL}`],
  ['audit', `none${EVIL}`],
  ['gate report', `none${EVIL}`],
  ['gate revoke', `none${EVIL}`, '--key', `k${EVIL}`, '--reason', EVIL, '--list', `l${EVIL}`],
  ['verify', `e${EVIL}`],
  ['verify', `none${EVIL}`],
  ['plan', R, '--no-time'],
  ['plan', '--model', EVIL],
  ['plan', '--model', `none${EVIL}`],
  ['plan', R, '--shape', EVIL, '--no-time'],
  ['model inspect', EVIL],
  ['model inspect', `none${EVIL}`],
  ['model init', `i${EVIL}`, '--preset', 'nano'],
  ['model init', `i${EVIL}`, '--preset', EVIL],
  ['data check', `${EVIL}.jsonl`, '--tokenizer', 'm'],
  ['data check', `bad${EVIL}.jsonl`, '--tokenizer', 'm'],
  ['data check', R],
  ['data check', `none${EVIL}.jsonl`, '--tokenizer', 'm'],
  ['data check', `${EVIL}.jsonl`, '--tokenizer', 'm', '--format', EVIL],
  ['generate', '--model', 'm', '--adapter', `${OUT}/adapter`, '--max-tokens', '3', EVIL],
  ['generate', '--model', EVIL, 'hi'],
  ['generate', '--model', 'm', '--prompts', 'prompts.jsonl', '--max-tokens', '3', '--out', `p${EVIL}`],
  ['generate', '--model', 'm', '--prompts', `none${EVIL}`, '--out', 'x'],
  ['generate', '--model', 'm', '--device', EVIL, 'hi'],
  ['logits', '--model', 'm', '--tokens', 'tokens.json', '--out', `l${EVIL}`],
  ['logits', '--model', 'm', '--tokens', `none${EVIL}`, '--out', 'x'],
  ['screen', 'texts.jsonl', '--policy', POLICY, '--judge', `none${EVIL}`, '--out', `v${EVIL}`],
  ['screen', 'texts.jsonl', '--policy', `none${EVIL}`, '--judge', 'm', '--out', `v${EVIL}`],
  [
    'screen',
    'texts.jsonl',
    '--policy',
    POLICY,
    '--judge',
    join(packageRoot, 'models', 'nano-judge'),
    '--out',
    `v${EVIL}`,
  ],
  ['screen', 'texts.jsonl', '--policy', POLICY, '--judge', `http://${EVIL}`, '--judge-model', 'x', '--out', 'v'],
  ['policy init', `none${EVIL}`],
  ['policy init', 'fine', '--from', EVIL],
  ['policy check', `none${EVIL}`],
  ['policy check', POLICY, '--golden', `none${EVIL}`],
  ['policy test', POLICY, '--judge', `none${EVIL}`],
  ['policy test', `none${EVIL}`, '--judge', 'm'],
  ['policy mutate', POLICY, '--judge', `none${EVIL}`],
  ['policy calibrate', POLICY, '--judge', `none${EVIL}`, '--out', `c${EVIL}`],
  ['screen merge', `none${EVIL}`, '--out', 'x'],
  ['review list', '--store', `none${EVIL}`],
  ['review golden', '--store', `none${EVIL}`, '--out', `g${EVIL}`],
  ['bench', '--model', `none${EVIL}`],
  ['bench', '--model', EVIL, '--seconds', '0.01', '--prefill', '8', '--depths', '8', '--batches', '1', '--lora', '1'],
  ['doctor', '--no-measure'],
  ['serve', '--model', `none${EVIL}`],
  ['pull', `${EVIL}/x`, 'p'],
  ['push', `none${EVIL}`, 'owner/name'],
  ['data convert', `${EVIL}.jsonl`, '--out', `c${EVIL}.jsonl`],
  ['data convert', `none${EVIL}.jsonl`, '--out', 'c.jsonl'],
  ['chat', '--model', `none${EVIL}`],
  ['key new', `k${EVIL}`],
  ['key new', `k${EVIL}`],
  ['log verify', `none${EVIL}`],
  ['log verify', `none${EVIL}`, '--key', `none${EVIL}`],
  ['log show', `none${EVIL}`],
  ['log show', '.', '--receipt', EVIL],
  ['log prove', `none${EVIL}`, EVIL],
  ['log check', `none${EVIL}`, '--key', `k${EVIL}.pub`],
  ['log check', `bad${EVIL}.jsonl`, '--key', `none${EVIL}`],
  ['log checkpoint', `none${EVIL}`],
  ['demo', '--out', `r${EVIL}.yaml`],
  [EVIL],
  ['train', R, `--${EVIL}`],
];
/** Runs a program of others, whose output is theirs; waits for browsers. */
const APART = ['build-native', 'watch'];

it('every command is here', () => {
  const names = new Set(lines.map(([name]) => name));
  expect(commands.map((c) => c.name).filter((name) => !names.has(name) && !APART.includes(name))).toEqual([]);
});

it.each(lines.map((line) => [line.map((word) => word.replaceAll(EVIL, '☠')).join(' '), line] as const))(
  '%s',
  async (_, [name, ...args]) => {
    // The library of a GPU is named by a variable.
    const env = name === 'doctor' ? { TEMPER_CUDA_LIBRARY: `/none${EVIL}.so` } : {};
    const { stdout, stderr } = await temper([...name.split(name === EVIL ? '\0' : ' '), ...args], { env });
    expect(stdout + stderr).not.toBe('');
    for (const text of [stdout, stderr]) {
      expect(text).not.toMatch(/(?![\t\n])\p{Cc}|[\u202a-\u202e\u2066-\u2069]/u);
      expect(text).not.toMatch(/^FAKE/m);
    }
  },
  180_000,
);

it('no command writes to a stream by itself', () => {
  const cli = join(packageRoot, 'src', 'cli');
  const own = (readdirSync(cli, { recursive: true }) as string[])
    .filter(
      (name) => name.endsWith('.ts') && /std(?:out|err)\.write\(|console\./.test(readFileSync(join(cli, name), 'utf8')),
    )
    .map((name) => relative(cli, join(cli, name)));
  // The doors: JSON, what a signal says, streams that are guarded, and text that was made safe.
  expect(own.sort()).toEqual(['command.ts', 'interrupt.ts', 'terminal.ts']);
});

it('JSON on a terminal is as safe', async () => {
  mkdirSync(`j${EVIL}`, { recursive: true });
  const { stdout } = await temper(['model', 'inspect', `j${EVIL}`, '--json']);
  expect(stdout).not.toMatch(/(?!\n)\p{Cc}|[\u202a-\u202e\u2066-\u2069]/u);
  expect(stdout.trim().split('\n')).toHaveLength(1);
});
