// Every kind of node an output may be, and every input that it must not be.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { OutputFile, putInPlace, writeFileAtomic, writeFolderAtomic } from '../../src/base/files.js';
import { packageRoot } from '../../src/base/machine.js';
import { checkOutputs, placeOf } from '../../src/base/outputs.js';
import { processSpace, temporaryName } from '../../src/base/temporary.js';

let dir: string;
const at = (name: string): string => join(dir, name);
const codeOf = (run: () => unknown): string => {
  try {
    run();
    return 'passed';
  } catch (e) {
    return (e as { code?: string }).code ?? String(e);
  }
};
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'outputs-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Each writer puts `text` at a path. */
const writers: Readonly<Record<string, (path: string, text: string) => Promise<void>>> = {
  writeFileAtomic: async (path, text) => writeFileAtomic(path, text),
  'OutputFile, in pieces': async (path, text) => {
    const file = await OutputFile.open(path);
    for (const c of text) await file.write(c);
    file.commit();
    file.discard();
  },
  putInPlace: async (path, text) => {
    writeFileSync(at('.finished'), text);
    await putInPlace(at('.finished'), path);
    expect(existsSync(at('.finished'))).toBe(false);
  },
};

describe.each(Object.entries(writers))('%s', (_, write) => {
  it('makes a new file and replaces an old one, whose permissions stay', async () => {
    await write(at('new'), 'a');
    expect(readFileSync(at('new'), 'utf8')).toBe('a');
    writeFileSync(at('old'), 'keep');
    await write(at('old'), 'b');
    expect(readFileSync(at('old'), 'utf8')).toBe('b');
    expect(readdirSync(dir).sort()).toEqual(['new', 'old']);
  });

  it.each([
    ['a link', (): void => symlinkSync('target', at('link'))],
    [
      'a link to a link',
      (): void => {
        symlinkSync('target', at('between'));
        symlinkSync('between', at('link'));
      },
    ],
    ['a link through a folder', (): void => symlinkSync(`../${dir.split('/').at(-1)}/target`, at('link'))],
  ])('%s stays, what it points to is written', async (_name, make) => {
    for (const before of ['old', null]) {
      rmSync(at('target'), { force: true });
      if (before) writeFileSync(at('target'), before);
      if (!existsSync(at('link')) && !lstatSync(at('link'), { throwIfNoEntry: false })) make();
      await write(at('link'), 'through');
      expect(lstatSync(at('link')).isSymbolicLink()).toBe(true);
      expect(lstatSync(at('target')).isFile()).toBe(true);
      expect(readFileSync(at('target'), 'utf8')).toBe('through');
    }
  });

  it('a device takes the bytes and stays one', async () => {
    symlinkSync('/dev/null', at('null'));
    await write(at('null'), 'gone');
    expect(lstatSync('/dev/null').isCharacterDevice()).toBe(true);
    expect(lstatSync(at('null')).isSymbolicLink()).toBe(true);
    await expect(write('/dev/full', 'no room')).rejects.toMatchObject({ code: 'disk_full' });
  });

  it('what cannot be written is a typed error', async () => {
    mkdirSync(at('folder'));
    symlinkSync('round', at('round'));
    for (const path of [at('folder'), join(at('missing'), 'x'), at('round')])
      await expect(write(path, 'x')).rejects.toMatchObject({ code: 'output_unwritable', exitCode: 2 });
  });
});

it('a FIFO gets all bytes, also more than it holds and before its reader comes, and stays one', async () => {
  execFileSync('mkfifo', [at('pipe')]);
  const { spawn } = await import('node:child_process');
  const text = 'x'.repeat(300_000);
  const write = (async () => {
    const file = await OutputFile.open(at('pipe'));
    await file.write(text);
    file.commit();
  })();
  await new Promise((done) => setTimeout(done, 50));
  const reader = spawn('cat', [at('pipe')]);
  let got = 0;
  reader.stdout.on('data', (piece: Buffer) => {
    got += piece.length;
  });
  await Promise.all([write, new Promise((done) => reader.on('close', done))]);
  expect(got).toBe(text.length);
  expect(lstatSync(at('pipe')).isFIFO()).toBe(true);
  const stop = new AbortController();
  const waits = OutputFile.open(at('pipe'), stop.signal);
  stop.abort(new Error('enough'));
  await expect(waits).rejects.toThrow('enough');
});

describe('what must not be written over', () => {
  beforeEach(() => {
    mkdirSync(at('model/original'), { recursive: true });
    for (const name of ['rows', 'policy', 'model/a.safetensors', 'model/original/b']) writeFileSync(at(name), name);
    writeFileSync(at('blob'), 'weights');
    symlinkSync('../blob', at('model/linked'));
    symlinkSync('rows', at('to-rows'));
    symlinkSync('model', at('to-model'));
    linkSync(at('policy'), at('hard'));
    mkdirSync(at('out'));
  });
  const inputs = () => ({ files: [at('rows'), at('policy'), undefined], folders: [at('model'), undefined] });
  it.each([
    ['an input', 'rows'],
    ['an input by another way', 'out/../rows'],
    ['an input through a link', 'to-rows'],
    ['a policy through a hard link', 'hard'],
    ['a weight file', 'model/a.safetensors'],
    ['a file in a folder of it', 'model/original/b'],
    ['what a file of the model links to', 'blob'],
    ['a new file beside the weights', 'model/new.safetensors'],
    ['the same through a link', 'to-model/new'],
  ])('%s', (_, path) => {
    expect(codeOf(() => checkOutputs({ '--out': at(path) }, inputs()))).toBe('output_clash');
  });
  it('one another, also through links and before either is there', () => {
    symlinkSync('out/one', at('second'));
    expect(codeOf(() => checkOutputs({ '--out': at('out/one'), '--junit': at('second') }, inputs()))).toBe(
      'output_clash',
    );
    const both = { '--out': '/dev/null', '--junit': '/dev/null', '--sarif': undefined };
    expect(codeOf(() => checkOutputs(both, inputs()))).toBe('passed');
    expect(codeOf(() => checkOutputs({ '--out': at('out/one'), '--junit': at('out/two') }, inputs()))).toBe('passed');
    expect(readdirSync(at('out'))).toEqual([]);
  });
  it('what could not be written in the end is found before', () => {
    for (const path of ['missing/x', 'out', 'rows/x'])
      expect(codeOf(() => checkOutputs({ '--out': at(path) }))).toBe('output_unwritable');
    for (const path of ['rows', 'rows/x'])
      expect(codeOf(() => checkOutputs({ '--out': at(path) }, {}, 'folder'))).toBe('output_unwritable');
    for (const path of ['new/er/x', 'out'])
      expect(codeOf(() => checkOutputs({ '--out': at(path) }, {}, 'folder'))).toBe('passed');
    expect(existsSync(at('new'))).toBe(false);
  });
  it.runIf(process.getuid?.() !== 0)('nor what the user may not write', () => {
    chmodSync(at('out'), 0o555);
    chmodSync(at('blob'), 0o444);
    for (const [path, kind] of [
      ['out/x', 'file'],
      ['blob', 'file'],
      ['out/a/b', 'folder'],
    ] as const)
      expect(codeOf(() => checkOutputs({ '--out': at(path) }, {}, kind))).toBe('output_unwritable');
    chmodSync(at('out'), 0o755);
  });
});

describe('a descriptor of this process that leads to a file', () => {
  const names = (fd: number): string[] => [`/dev/fd/${fd}`, `/proc/self/fd/${fd}`, `/proc/${process.pid}/fd/${fd}`];
  it.each(Object.entries(writers))('is written on, the file stays: %s', async (_, write) => {
    writeFileSync(at('log'), 'before ');
    const { ino } = statSync(at('log'));
    for (const mode of ['a', 'w'] as const) {
      const fd = openSync(at('log'), mode);
      try {
        if (mode === 'w') writeSync(fd, 'first ');
        for (const name of names(fd)) {
          expect(placeOf(name)).toMatchObject({ stream: true, descriptor: fd });
          await write(name, 'x');
        }
        symlinkSync(names(fd)[0] ?? '', at(`link-${mode}`));
        await write(at(`link-${mode}`), 'y');
        writeSync(fd, ' after'); // it is open still
      } finally {
        closeSync(fd);
      }
      expect(readFileSync(at('log'), 'utf8')).toBe(mode === 'a' ? 'before xxxy after' : 'first xxxy after');
      expect(statSync(at('log')).ino).toBe(ino);
    }
    expect(readdirSync(dir).filter((n) => !n.startsWith('link'))).toEqual(['log']);
  });
  it('is refused before the work where it cannot be written on, or is an input', async () => {
    writeFileSync(at('rows'), 'rows');
    const [read, write] = [openSync(at('rows'), 'r'), openSync(at('rows'), 'a')];
    const told = (path: string): string => {
      try {
        checkOutputs({ '--out': path }, { files: [at('rows')] });
        return 'passed';
      } catch (e) {
        return (e as Error).message;
      }
    };
    try {
      expect(told(`/dev/fd/${read}`)).toMatch(/open for reading only/);
      expect(told(`/dev/fd/${write}`)).toMatch(/is an input/);
      expect(told('/dev/fd/987654')).toMatch(/descriptor 987654 is not open/);
      expect(codeOf(() => checkOutputs({ '--out': `/dev/fd/${write}` }, {}, 'folder'))).toBe('output_unwritable');
      const two = { '--out': `/dev/fd/${write}`, '--junit': at('rows') };
      expect(codeOf(() => checkOutputs(two))).toBe('output_clash');
      await expect(OutputFile.open('/dev/fd/987654')).rejects.toMatchObject({ code: 'output_unwritable' });
    } finally {
      closeSync(read);
      closeSync(write);
    }
  });
  it('of another process is refused where it is a file', async () => {
    const fd = openSync(at('theirs'), 'w');
    const child = spawn('sleep', ['30'], { stdio: ['ignore', fd, 'ignore'] });
    try {
      expect(codeOf(() => placeOf(`/proc/${child.pid}/fd/1`))).toBe('output_unwritable');
    } finally {
      child.kill();
      closeSync(fd);
    }
  });
});

it.each([
  ['>', 'new', ''],
  ['>>', 'old', 'old\n'],
])('a command under a shell redirection %s writes on its stdout', (redirection, name, before) => {
  if (before) writeFileSync(at(name), before);
  writeFileSync(at('prompts'), '{"prompt": "hi"}\n');
  const main = join(packageRoot, 'dist', 'cli', 'main.js');
  const script =
    'exec "$0" "$1" generate --model "$2" --max-tokens 4 --prompts prompts --out /dev/stdout ' +
    `${redirection} ${name}`;
  const ran = spawnSync('bash', ['-c', script, process.execPath, main, join(packageRoot, 'models', 'nano')], {
    cwd: dir,
  });
  expect(ran.stderr.toString()).toContain('answers in /dev/stdout');
  const lines = readFileSync(at(name), 'utf8').slice(before.length).trim().split('\n');
  expect(readFileSync(at(name), 'utf8').startsWith(before)).toBe(true);
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0] ?? '')).toMatchObject({ id: '1' });
});

it('stdout that is a socket, or a pipe whose reader left, is no wait for ever', async () => {
  writeFileSync(at('prompts'), '{"prompt": "hi"}\n');
  const args = [
    'generate',
    '--model',
    join(packageRoot, 'models', 'nano'),
    '--max-tokens',
    '4',
    '--prompts',
    'prompts',
  ];
  // Node gives its children sockets.
  const child = spawn(process.execPath, [join(packageRoot, 'dist/cli/main.js'), ...args, '--out', '/dev/stdout'], {
    cwd: dir,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let got = '';
  child.stdout.on('data', (piece: Buffer) => {
    got += piece.toString();
  });
  expect(await new Promise((done) => child.on('close', done))).toBe(20);
  expect(JSON.parse(got)).toMatchObject({ id: '1' });
  const script = `"$0" "$@" --out /dev/stdout | true; exit \${PIPESTATUS[0]}`;
  const ran = spawnSync('bash', ['-c', script, process.execPath, join(packageRoot, 'dist/cli/main.js'), ...args], {
    cwd: dir,
    timeout: 20_000,
  });
  expect(ran.status).toBe(2);
  expect(ran.stderr.toString()).toMatch(/\/dev\/stdout: cannot be written \(EPIPE\)/);
});

it('the mode of a file that is replaced stays', () => {
  writeFileSync(at('x'), 'old');
  chmodSync(at('x'), 0o600);
  writeFileAtomic(at('x'), 'new');
  expect(statSync(at('x')).mode & 0o777).toBe(0o600);
  expect(placeOf(at('x'))).toEqual({ target: at('x'), stream: false, mode: 0o600 });
});

it('parts of dead writers go, those of living ones and of other machines stay', async () => {
  const dead = execFileSync(process.execPath, ['-p', 'process.pid'], { encoding: 'utf8' }).trim();
  const part = (name: string, pid: string | number, space: string, end = 'tmp'): string =>
    `.${name}.${pid}.${space}.0-abc-0.${end}`;
  const parts = {
    gone: part('x', dead, processSpace),
    alive: part('x', process.pid, processSpace),
    elsewhere: part('x', dead, '00000000'),
    other: part('x.y', dead, processSpace),
    user: '.x.tmp',
    onlyCopy: part('folder', dead, processSpace, 'old'),
  };
  for (const name of Object.values(parts)) writeFileSync(at(name), 'part');
  writeFileAtomic(at('x'), 'whole');
  const { gone: _, ...kept } = parts;
  expect(readdirSync(dir).sort()).toEqual(['x', ...Object.values(kept)].sort());
  await writeFolderAtomic(at('folder'), () => {});
  expect(existsSync(at(parts.onlyCopy))).toBe(true);
  await writeFolderAtomic(at('folder'), () => {});
  expect(existsSync(at(parts.onlyCopy))).toBe(false);
  expect(temporaryName(at('x'))).toContain(`.x.${process.pid}.${processSpace}.`);
});

it('a folder is made and replaced behind its link', async () => {
  symlinkSync('real', at('link'));
  for (const text of ['one', 'two']) {
    await writeFolderAtomic(at('link'), (folder) => writeFileSync(join(folder, 'f'), text));
    expect(lstatSync(at('link')).isSymbolicLink()).toBe(true);
    expect(readFileSync(at('real/f'), 'utf8')).toBe(text);
  }
  expect(readdirSync(dir).sort()).toEqual(['link', 'real']);
});
