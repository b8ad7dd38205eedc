import { describe, expect, it } from 'vitest';
import { createProgram, reportError } from '../../src/cli/main.js';
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
  it('rewrites one line on a terminal, with rate and time left', () => {
    const { out, stream } = collect(true);
    let t = 0;
    const progress = createProgress({ label: 'train', total: 100, unit: 'tokens', stream, now: () => t });
    t = 2000;
    progress.update(50, 'loss 1.5');
    t = 2010;
    progress.update(51);
    progress.finish('done');
    expect(out).toEqual(['\r\x1b[2Ktrain 50%  25.0 tokens/s  loss 1.5, 2s left', '\r\x1b[2K', 'done\n']);
  });
  it('writes a line now and then elsewhere', () => {
    const { out, stream } = collect(false);
    let t = 0;
    const progress = createProgress({ label: 'screen', unit: 'rows', stream, now: () => t });
    for (t = 1000; t < 25_000; t += 1000) progress.update(t / 1000);
    progress.finish();
    expect(out).toEqual(['screen 1  1.0 rows/s\n', 'screen 11  1.0 rows/s\n', 'screen 21  1.0 rows/s\n']);
  });
});
