// Colour only where a terminal shows it, and no control characters of a model on one.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { printable } from '../../src/cli/terminal.js';

it('text of a model cannot drive the terminal', () => {
  expect(printable('a\x1b[2J\u009b\r\tb\n')).toBe('a\\x1b[2J\\x9b\\x0d\tb\n');
});

it.each([
  ['a pipe', false, {}, false],
  ['a terminal', true, {}, true],
  ['a terminal under NO_COLOR', true, { NO_COLOR: '1' }, false],
] as const)('%s', (_, isTTY, env, coloured) => {
  const script = `
    const { WriteStream } = await import('node:tty');
    process.stderr.isTTY = ${isTTY};
    process.stderr.getColorDepth = WriteStream.prototype.getColorDepth;
    const { createShow } = await import(${JSON.stringify(join(packageRoot, 'dist', 'cli', 'terminal.js'))});
    let out = '';
    process.stderr.write = (text) => { out += text; };
    const { show, end } = createShow();
    show('analysis', 'hm', false); end();
    console.log(JSON.stringify(out));`;
  // Nothing else of this environment: CI and a dozen other variables have a say in colours.
  const { PATH, HOME, NODE_V8_COVERAGE } = process.env;
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: { PATH, HOME, NODE_V8_COVERAGE, TERM: 'xterm-256color', ...env },
  });
  expect(JSON.parse(out)).toBe(coloured ? '\x1b[2manalysis: \x1b[22m\x1b[2mhm\x1b[22m\n' : 'analysis: hm\n');
});
