import { describe, expect, it } from 'vitest';
import { createProgram, reportError, typedCommand } from '../../src/cli/main.js';
import { createProgress } from '../../src/cli/progress.js';
import { commands } from '../../src/cli/registry.js';
import { temper, temperProcess } from './run.js';

describe('temper', () => {
  it('--help lists every command', async () => {
    const { code, stdout } = await temperProcess(['--help']);
    expect(code).toBe(0);
    for (const { name, summary } of commands) {
      expect(stdout).toContain(name.split(' ')[0]);
      expect(summary.length).toBeGreaterThan(10);
    }
    expect(stdout).toContain('Exit codes');
  });
  it('every command explains itself with examples, and has no option twice', async () => {
    const program = await createProgram();
    let checked = 0;
    for (const { name } of commands) {
      const command = name
        .split(' ')
        .reduce(
          (at, word) => at.commands.find((c) => c.name() === word) ?? expect.fail(`${name} is not registered`),
          program,
        );
      let help = '';
      command
        .configureOutput({
          writeOut: (text) => {
            help += text;
          },
        })
        .outputHelp();
      expect(help, name).toContain('Examples:');
      checked++;
    }
    expect(checked).toBe(commands.length);
  });
  it('reads the file of the command that was typed alone, and all where it may be any', async () => {
    for (const command of commands) {
      const typed = command.name.split(' ');
      expect((await typedCommand([...typed, '--help']))?.name, command.name).toBe(command.name);
      const program = await createProgram(typed);
      expect(program.commands.map((c) => c.name())).toEqual([typed[0]]);
    }
    for (const argv of [
      [],
      ['--help'],
      ['frob'],
      ['model'],
      ['help', 'train'],
      ['../main'],
      ['model-init'],
      ['data', 'frob'],
    ])
      expect(await typedCommand(argv), argv.join(' ')).toBeNull();
    expect((await createProgram(['model'])).commands.length).toBeGreaterThan(10);
  });
  it('usage errors name the help of their command, which marks what is required', async () => {
    for (const [argv, help] of [
      [['train'], 'temper train'],
      [['train', 'r.yaml', '--frob'], 'temper train'],
      [['export', 'run'], 'temper export'],
      [['model', 'init', '--frob'], 'temper model init'],
      [['model', 'frob'], 'temper model'],
      [['data', 'check'], 'temper data check'],
    ] as const)
      expect((await temper([...argv])).stderr, argv.join(' ')).toMatch(new RegExp(`; see \`${help} --help\`\\n$`));
    let checked = 0;
    const walk = (command: Awaited<ReturnType<typeof createProgram>>): void => {
      const help = command.createHelp();
      for (const option of command.options) {
        if (!option.mandatory) continue;
        checked++;
        expect(help.formatHelp(command, help)).toContain(`${option.flags} (required)`);
      }
      command.commands.forEach(walk);
    };
    walk(await createProgram());
    expect(checked).toBeGreaterThanOrEqual(3);
  });
  it('--version', async () => {
    expect((await temper(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
  it.each([
    [['frob'], /^temper: unknown command 'frob'; see `temper --help`\n$/],
    [['generate'], /^temper: required option '--model <dir>' not specified;.*\n$/],
    [
      ['generate', '--model', 'x', '--top-p', '2', 'hi'],
      /^temper: option '--top-p <x>' argument '2' is invalid\. wanted.*\n$/,
    ],
    [['doctor', '--frob'], /^temper: unknown option '--frob'.*\n$/],
    [['screen', 'x.jsonl', '--out', 'y'], /^temper: screen: no --policy.*\n$/],
    [['generate', '--model', '/nonexistent', 'hi'], /^temper: [^\n]*\/nonexistent[^\n]*\n$/],
    [
      ['generate', '--model', '/nonexistent', '--policy', 'policies/contact/policy.md', 'hi'],
      /^temper: --policy without --judge[^\n]*\n$/,
    ],
    [
      ['generate', '--model', '/nonexistent', '--judge', 'http://127.0.0.1:1/v1', 'hi'],
      /^temper: --judge without --policy[^\n]*\n$/,
    ],
  ])('%j: one line on stderr, exit code 2', async (args, line) => {
    const { code, stdout, stderr } = await temper(args);
    expect(stderr).toMatch(line);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });
  it('--json: the error as one line of JSON on stdout', async () => {
    const { code, stdout, stderr } = await temper(['generate', '--model', '/nonexistent', '--json', 'hi']);
    expect(JSON.parse(stdout)).toMatchObject({
      error: {
        code: expect.stringMatching(/^[a-z_]+$/) as string,
        message: expect.stringContaining('/nonexistent') as string,
      },
    });
    expect(stderr).toBe('');
    expect(code).toBe(2);
  });
  it('an unknown error exits 1, with its stack only under TEMPER_DEBUG', () => {
    const lines: string[] = [];
    const write = process.stderr.write.bind(process.stderr);
    process.stderr.write = ((text: string) => {
      lines.push(text);
      return true;
    }) as typeof process.stderr.write;
    try {
      expect(reportError(new Error('boom\n  at line two'), false)).toBe(1);
      process.env.TEMPER_DEBUG = '1';
      expect(reportError(new Error('boom'), false)).toBe(1);
    } finally {
      process.stderr.write = write;
      delete process.env.TEMPER_DEBUG;
    }
    expect(lines[0]).toBe('temper: unexpected error: boom at line two; TEMPER_DEBUG=1 shows where\n');
    expect(lines[1]).toContain('main.test.ts');
  });
  it('an error ends the process with its code', async () => {
    expect(await temperProcess(['generate', '--model', '/nonexistent', 'hi'])).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringMatching(/^temper: [^\n]*\n$/) as string,
    });
  });
  it('doctor', async () => {
    const { code, stdout } = await temper(['doctor', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      cpu: { isa: expect.any(String) as string },
      memory: { totalBytes: expect.any(Number) as number },
    });
  });
});

describe('progress', () => {
  const collect = (isTTY: boolean) => {
    const out: string[] = [];
    return {
      out,
      stream: {
        isTTY,
        columns: 60,
        write: (text: string) => {
          out.push(text);
        },
      },
    };
  };
  it('rewrites one line on a terminal, with rate and time left once they can be told', () => {
    const { out, stream } = collect(true);
    let t = 5000;
    const progress = createProgress({ label: 'train', total: 100, unit: 'tokens', stream, now: () => t });
    // What came before the first report does not count.
    for (const [at, done] of [
      [60_000, 10],
      [60_500, 20],
      [62_000, 50],
      [62_010, 51],
      [64_000, 60],
    ] as const) {
      t = at;
      progress.update(done, 'loss 1.5');
    }
    progress.finish('done');
    expect(out).toEqual([
      '\r\x1b[2Ktrain 10%  loss 1.5',
      '\r\x1b[2Ktrain 20%  loss 1.5',
      '\r\x1b[2Ktrain 50%  loss 1.5  20.0 tokens/s',
      '\r\x1b[2Ktrain 60%  3s left  loss 1.5  12.5 tokens/s',
      '\r\x1b[2K',
      'done\n',
    ]);
  });
  it('never says a time that is left from nothing', () => {
    const { out, stream } = collect(false);
    let t = 0;
    const progress = createProgress({ label: 'init', total: 1e9, unit: 'bytes', stream, now: () => t });
    for (; t <= 120_000; t += 1000) progress.update(t <= 60_000 ? 2048 + t : 2e7 + t);
    expect(out.filter((line) => line.includes('left'))).toEqual(out.slice(7));
    expect(out[0]).toBe('init 0%\n');
  });
  it.each([
    ['a terminal', true, 40],
    ['a terminal that does not say how wide it is', true, undefined],
    ['a log', false, undefined],
  ] as const)('fits %s', (_, isTTY, columns) => {
    const out: string[] = [];
    let t = 0;
    const stream = { isTTY, ...(columns === undefined ? {} : { columns }), write: (text: string) => out.push(text) };
    const progress = createProgress({ label: 'train', total: 3000, unit: 'steps', stream, now: () => t });
    for (let step = 1; step < 100; step++, t += 11_000)
      progress.update(
        step,
        `step ${1000 + step}/3000  loss 12.3456  123.4k tokens/s  lr 1.0e-4  norm 123.45  eval ` +
          `1.2345  ${'x'.repeat(90)}`,
      );
    const width = columns ?? 80;
    for (const text of out) expect(text.replace('\r\x1b[2K', '').replace('\n', '').length).toBeLessThan(width);
    expect(out.at(-1)).toMatch(/^\S* ?train 3% {2}\S+ left {2}step 1099\/3000/m);
  });
  it('moves no cursor on a terminal that cannot', () => {
    const { out, stream } = collect(true);
    const before = process.env.TERM;
    process.env.TERM = 'dumb';
    try {
      const progress = createProgress({ label: 'train', unit: 'steps', stream });
      progress.update(1);
      progress.finish();
    } finally {
      process.env.TERM = before;
    }
    expect(out).toEqual(['train 1 steps\n']);
  });
  it('writes a line now and then elsewhere', () => {
    const { out, stream } = collect(false);
    let t = 0;
    const progress = createProgress({ label: 'screen', unit: 'rows', stream, now: () => t });
    for (t = 1000; t < 25_000; t += 1000) progress.update(t / 1000);
    progress.finish();
    expect(out).toEqual(['screen 1 rows\n', 'screen 11 rows  1.0 rows/s\n', 'screen 21 rows  1.0 rows/s\n']);
  });
});
