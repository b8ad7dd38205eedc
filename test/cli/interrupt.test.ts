// Ctrl-C and SIGTERM in every command that takes long, and streams that fail, as users have them: compiled code, a
// process each.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { TurnInterrupts } from '../../src/cli/commands/chat.js';
import type { ModelConfig } from '../../src/model/config.js';
import { initCheckpoint, PRESETS } from '../../src/model/init.js';

const NANO = join(packageRoot, 'models', 'nano');
let dir: string;
const at = (name: string): string => join(dir, name);
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'interrupt-'));
  const rows = readFileSync(join(packageRoot, 'datasets', 'tickets', 'train.jsonl'), 'utf8')
    .split('\n')
    .slice(0, 40);
  writeFileSync(at('rows.jsonl'), `${rows.join('\n')}\n`);
  writeFileSync(
    at('recipe.yaml'),
    `model: { base: ${NANO} }\ndata: { train: [{ path: rows.jsonl }] }\n` +
      'train: { rowsPerStep: 4, lr: 1e-3, steps: 5000, checkpointEvery: 5000 }\n',
  );
  const tokens = Array.from({ length: 400 }, () => Array.from({ length: 900 }, (_, i) => i % 900));
  writeFileSync(at('tokens.json'), JSON.stringify({ tokens }));
  execFileSync('mkfifo', [at('pipe')]);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface Started {
  readonly child: ChildProcess;
  readonly err: () => string;
  readonly out: () => string;
  /** Exit code as a shell has it. */
  readonly ended: Promise<number>;
}
function start(args: readonly string[], stdio: readonly ('pipe' | number)[] = ['pipe', 'pipe', 'pipe']): Started {
  const child = spawn(process.execPath, [join(packageRoot, 'dist', 'cli', 'main.js'), ...args], {
    cwd: dir,
    stdio: [...stdio],
  });
  let [out, err] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  const ended = new Promise<number>((done) =>
    child.on('close', (code, signal) => done(code ?? (signal === 'SIGINT' ? 130 : signal === 'SIGTERM' ? 143 : 999))),
  );
  return { child, err: () => err, out: () => out, ended };
}
const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));
async function until(what: () => boolean): Promise<void> {
  for (let i = 0; i < 600 && !what(); i++) await sleep(50);
  expect(what()).toBe(true);
}

/** Until it has handlers of signals, by that of SIGHUP: Node has one of SIGINT from the start. And a moment more. */
async function untilItWaits({ child }: Started): Promise<void> {
  const caught = (): string =>
    /^SigCgt:\s*(\w+)/m.exec(readFileSync(`/proc/${child.pid}/status`, 'latin1'))?.[1] ?? '0';
  await (process.platform === 'linux' ? until(() => (BigInt(`0x${caught()}`) & 1n) === 1n) : sleep(2000));
  await sleep(500);
}

describe.each([
  ['bench', ['bench', '--model', NANO, '--seconds', '60'], (s: Started) => s.out().includes('tokens/s')],
  [
    'logits',
    ['logits', '--model', NANO, '--tokens', 'tokens.json', '--out', 'l.safetensors'],
    (s: Started) => s.err().includes('logits'),
  ],
  ['model init', ['model', 'init', 'big', '--preset', '20b'], (s: Started) => s.err().includes('init')],
  [
    'logits into a FIFO that nobody reads',
    ['logits', '--model', NANO, '--tokens', 'tokens.json', '--out', 'pipe'],
    () => true,
  ],
] as const)('%s', (name, args, begun) => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('ends by %s, with nothing left behind', async (signal, code) => {
    const s = start(args);
    await (name.includes('FIFO') ? untilItWaits(s) : until(() => begun(s)));
    s.child.kill(signal);
    expect(await s.ended).toBe(code);
    expect(readdirSync(dir).filter((n) => n.includes('.tmp') || n === 'big' || n.endsWith('.safetensors'))).toEqual([]);
  });
});

it('a second Ctrl-C ends a command at once, whatever it does', async () => {
  const s = start(['logits', '--model', NANO, '--tokens', 'tokens.json', '--out', 'pipe']);
  await untilItWaits(s);
  s.child.kill('SIGINT');
  await until(() => s.err().includes('press Ctrl-C again'));
  await sleep(100); // sooner it would be the same one
  const from = performance.now();
  s.child.kill('SIGINT');
  expect(await s.ended).toBe(130);
  expect(performance.now() - from).toBeLessThan(20_000); // the pipe would wait for good
});

describe('train', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s saves a checkpoint', async (signal, code) => {
    const run = `run-${signal}`;
    const s = start(['train', 'recipe.yaml', '--out', run]);
    await until(() => s.err().includes('step'));
    // One writer a run.
    const second = start(['train', 'recipe.yaml', '--out', run, '--resume']);
    expect(await second.ended).toBe(2);
    expect(second.err()).toContain('writes to this run');
    s.child.kill(signal);
    expect(await s.ended).toBe(code);
    expect(s.err()).toContain('saving after this step');
    expect(JSON.parse(readFileSync(at(`${run}/run.json`), 'utf8'))).toMatchObject({ status: 'stopped' });
    expect(readdirSync(at(`${run}/checkpoints`))).toHaveLength(1);
    expect(readdirSync(dir).filter((n) => n.includes('lock'))).toEqual([]);
  });
  it('goes on without a place for what it prints, and a killed one leaves no lock that holds', async () => {
    const full = openSync('/dev/full', 'w');
    const s = start(['train', 'recipe.yaml', '--out', 'deaf', '--set', 'train.steps=3'], ['pipe', 'pipe', full]);
    expect(await s.ended).toBe(0);
    const killed = start(['train', 'recipe.yaml', '--out', 'killed']);
    await until(() => killed.err().includes('step'));
    killed.child.kill('SIGKILL');
    await killed.ended;
    expect(readdirSync(dir)).toContain('.killed.lock');
    const again = start(['train', 'recipe.yaml', '--out', 'killed', '--set', 'train.steps=1', '--resume']);
    await again.ended;
    expect(again.err()).not.toContain('writes to this run');
    expect(readdirSync(dir)).not.toContain('.killed.lock');
  });
  it('stdout on a full disk is one line and exit 2', async () => {
    const full = openSync('/dev/full', 'w');
    const s = start(['doctor', '--no-measure'], ['pipe', full, 'pipe']);
    expect(await s.ended).toBe(2);
    expect(s.err()).toMatch(/^temper: stdout: cannot be written \(ENOSPC\).*\n$/);
  });
});

describe('chat', () => {
  it('Ctrl-C ends the answer, a second one the session', async () => {
    const interrupts = new TurnInterrupts();
    const session = new AbortController();
    const answer = (signal: AbortSignal): Promise<string> =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    const stopped = interrupts.run(session.signal, answer);
    expect(interrupts.handle()).toBe(true);
    expect(await stopped).toBe(null);
    expect(interrupts.handle()).toBe(false);
    // What was typed since makes it the first one again.
    interrupts.typed();
    expect(interrupts.handle()).toBe(true);
    expect(interrupts.handle()).toBe(false);
    const ended = interrupts.run(session.signal, answer);
    session.abort(new Error('ended'));
    await expect(ended).rejects.toThrow('ended');
  });
  describe('in the middle of an answer', () => {
    beforeAll(async () => {
      // A random model that would talk for minutes.
      const { rope_scaling, ...rest } = PRESETS.nano;
      const shape = { ...rest, rope_scaling: { ...rope_scaling, factor: 512 }, max_position_embeddings: 131072 };
      await initCheckpoint(at('talker'), shape as ModelConfig, { seed: 11 });
      copyFileSync(join(NANO, 'tokenizer.json'), at('talker/tokenizer.json'));
    });
    const talking = async (): Promise<{ readonly s: Started; ask(): Promise<void> }> => {
      const s = start(['chat', '--model', 'talker', '--temperature', '0', '--max-tokens', '100000']);
      return {
        s,
        async ask() {
          const before = s.err().length + s.out().length;
          s.child.stdin?.write('hello\n');
          await until(() => s.err().length + s.out().length > before + 20);
        },
      };
    };
    it('Ctrl-C ends it and the session goes on', async () => {
      const { s, ask } = await talking();
      for (let turn = 1; turn <= 2; turn++) {
        await ask();
        s.child.kill('SIGINT');
        await until(() => s.err().match(/stopped; this turn is left out/g)?.length === turn);
      }
      s.child.stdin?.write('/reset\n/quit\n');
      expect(await s.ended).toBe(0);
      expect(s.err()).toContain('the conversation is forgotten');
    });
    it('twice ends the session, SIGTERM at once', async () => {
      const { s, ask } = await talking();
      await ask();
      s.child.kill('SIGINT');
      await until(() => s.err().includes('this turn is left out'));
      await sleep(100); // sooner it would be the same one
      s.child.kill('SIGINT');
      expect(await s.ended).toBe(130);
      const other = await talking();
      await other.ask();
      other.s.child.kill('SIGTERM');
      expect(await other.s.ended).toBe(143);
    });
  });
  it('commands confirm; at the prompt Ctrl-C asks for a second one', async () => {
    const s = start(['chat', '--model', NANO]);
    s.child.stdin?.write('/effort high\n/system be short\n/reset\n');
    await until(() => s.err().match(/the conversation is forgotten/g)?.length === 2);
    expect(s.err()).toContain('reasoning effort is high');
    expect(s.err()).toContain('new instructions');
    s.child.kill('SIGINT');
    await until(() => s.err().includes('press Ctrl-C again to end'));
    await sleep(100);
    s.child.kill('SIGINT');
    expect(await s.ended).toBe(130);
  });
});
