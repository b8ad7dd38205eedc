// What takes long says how far it is, on every terminal: without colours under NO_COLOR, without moving the cursor
// where TERM is dumb, and always within the width.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WriteStream } from 'node:tty';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { COMMIT, type HubServer, startHubServer } from '../hub/hub-server.js';
import { temper } from './run.js';

const NANO = join(packageRoot, 'models', 'nano');
let dir: string;
let before: string;
let hub: HubServer;
beforeAll(async () => {
  before = process.cwd();
  dir = mkdtempSync(join(tmpdir(), 'dumb-'));
  process.chdir(dir);
  const rows = readFileSync(join(packageRoot, 'datasets', 'tickets', 'train.jsonl'), 'utf8')
    .split('\n')
    .slice(0, 8);
  writeFileSync('rows.jsonl', `${rows.join('\n')}\n`);
  writeFileSync(
    'r.yaml',
    `model: { base: ${NANO} }\ndata: { train: [{ path: rows.jsonl }], eval: [{ path: rows.jsonl }] }\n` +
      'train: { rowsPerStep: 4, lr: 1e-3, steps: 2, evalEvery: 2 }\ndevice: cpu\nexport: [peft]\ngate: off\n',
  );
  const pair = (i: number): string => JSON.stringify({ prompt: `q${i}`, chosen: 'yes', rejected: 'no' });
  writeFileSync('pairs.jsonl', `${[1, 2, 3, 4].map(pair).join('\n')}\n`);
  writeFileSync(
    'dpo.yaml',
    `model: { base: ${NANO} }\ndata: { train: [{ path: pairs.jsonl, format: preference }] }\n` +
      'train: { method: dpo, precomputeReference: true, rowsPerStep: 4, lr: 1e-4, steps: 1 }\n' +
      'device: cpu\nexport: []\n',
  );
  writeFileSync('prompts.jsonl', '{"prompt": "hi"}\n{"prompt": "ho"}\n');
  writeFileSync('texts.jsonl', '{"id": "a", "text": "Your table is booked"}\n');
  writeFileSync('tokens.json', '{"tokens": [[1, 2, 3], [4, 5]]}');
  hub = await startHubServer({
    repos: { 'model acme/tiny': { files: { 'model.safetensors': Buffer.alloc(300_000, 1) }, commit: COMMIT } },
  });
});
afterAll(async () => {
  process.chdir(before);
  await hub.close();
  rmSync(dir, { recursive: true, force: true });
});

/** In this order: some need what others make. What each says of its progress, at the beginning of a line. */
const lines: readonly (readonly [file: string, label: RegExp, ...args: string[]])[] = [
  ['train.ts', /^train 50%/m, 'train', 'r.yaml', '--out', 'run'],
  ['train.ts', /^reference /m, 'train', 'dpo.yaml', '--out', 'pairs'],
  ['eval.ts', /^loss 100%[\s\S]*^generate 1/m, 'eval', 'run', '--max-tokens', '3'],
  ['export.ts', /^merged-bf16 /m, 'export', 'run', '--format', 'merged-bf16', '--out', 'merged'],
  ['generate.ts', /^generate 50%/m, 'generate', '--model', NANO, '--prompts', 'prompts.jsonl', '--out', 'answers'],
  [
    'screen.ts',
    /^screen /m,
    ...['screen', 'texts.jsonl', '--policy', join(packageRoot, 'policies', 'contact', 'policy.md')],
    ...['--judge', join(packageRoot, 'models', 'nano-judge'), '--judge-max-tokens', '96', '--out', 'verdicts'],
  ],
  ['logits.ts', /^logits 50%/m, 'logits', '--model', NANO, '--tokens', 'tokens.json', '--out', 'l.safetensors'],
  ['model-init.ts', /^init /m, 'model', 'init', 'fresh', '--preset', 'nano'],
  ['model-inspect.ts', /^digest /m, 'model', 'inspect', 'fresh', '--full'],
  ['pull.ts', /^pull /m, 'pull', 'acme/tiny', 'pulled'],
];
/** Runs for minutes, or looks at a log, a golden set or a gate first. Their lines are made by the same door. */
const APART = [
  'audit.ts',
  'demo.ts',
  'data-check.ts',
  'data-convert.ts',
  'doctor.ts', // of its --tune, which needs a GPU
  'gate.ts',
  'gate-decide.ts',
  'gate-probe.ts',
  'log-prove.ts',
  'log-verify.ts',
  'policy-calibrate.ts',
  'policy-mutate.ts',
  'policy-test.ts',
  'screen-merge.ts',
  'sign.ts',
];

it('every command that shows progress is here', () => {
  const commands = join(packageRoot, 'src', 'cli', 'commands');
  const showing = readdirSync(commands).filter((name) =>
    readFileSync(join(commands, name), 'utf8').includes('createProgress('),
  );
  const known = [...lines.map(([file]) => file), ...APART];
  expect(showing.filter((name) => !known.includes(name))).toEqual([]);
});

/** As on a terminal of 80 columns, with its variables alone: what a CI sets tells Node of fewer colours. */
async function onTerminal(args: readonly string[], env: Readonly<Record<string, string>>): Promise<string> {
  const streams = [process.stdout, process.stderr];
  const was = streams.map((s) => Object.getOwnPropertyDescriptors(s));
  const cleared = { FORCE_COLOR: process.env.FORCE_COLOR, NO_COLOR: process.env.NO_COLOR };
  delete process.env.FORCE_COLOR;
  delete process.env.NO_COLOR;
  for (const s of streams)
    for (const [name, value] of [
      ['isTTY', true],
      ['columns', 80],
      ['getColorDepth', () => WriteStream.prototype.getColorDepth(env)],
    ] as const)
      Object.defineProperty(s, name, { value, configurable: true });
  try {
    const { stdout, stderr, code } = await temper(args, {
      env: { ...env, HF_ENDPOINT: hub.url, HF_HOME: join(dir, 'hf-home'), HF_TOKEN: 'hf_x' },
    });
    expect(code, stderr).toBeLessThan(40);
    return stdout + stderr;
  } finally {
    for (const [i, s] of streams.entries())
      for (const name of ['isTTY', 'columns', 'getColorDepth']) {
        const d = was[i]?.[name];
        if (d) Object.defineProperty(s, name, d);
        else Reflect.deleteProperty(s, name);
      }
    for (const [name, value] of Object.entries(cleared)) if (value !== undefined) process.env[name] = value;
  }
}

it.each(lines.map((line) => [line.slice(2).join(' ').replaceAll(packageRoot, ''), line] as const))(
  'TERM=dumb: %s',
  async (_, [, label, ...args]) => {
    const said = await onTerminal(args, { TERM: 'dumb' });
    expect(said).toMatch(label);
    expect(said).not.toMatch(/(?![\t\n])\p{Cc}/u);
  },
);

it.each([
  ['generate', '--model', NANO, '--temperature', '0', 'Please book a table for 4 people on friday at 19:30 for Rossi'],
  ['data', 'check', 'rows.jsonl', '--tokenizer', NANO],
  ['logits', '--model', NANO, '--tokens', 'tokens.json', '--out', 'm.safetensors'],
])('NO_COLOR: %s', async (...args) => {
  const said = await onTerminal(args, { TERM: 'xterm-256color', NO_COLOR: '1' });
  // A line is rewritten in its place, in no colour.
  expect(said.replaceAll('\r\x1b[2K', '')).not.toMatch(/(?![\t\n])\p{Cc}/u);
  const coloured = await onTerminal(args, { TERM: 'xterm-256color' });
  expect(coloured.replaceAll('\r\x1b[2K', '').includes('\x1b[')).toBe(args[0] !== 'logits');
});
