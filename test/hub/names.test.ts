// Names: of repos and references as people write them, and of files as a hub may offer them.

import { posix } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkNames, clashOf, nameProblem } from '../../src/hub/names.js';
import { isReference, parseReference, parseRepo, pinnedReference, repoText } from '../../src/hub/reference.js';
import { matcher, selectFiles } from '../../src/hub/select.js';

const COMMIT = '0123456789abcdef0123456789abcdef01234567';

describe('repos', () => {
  it.each([
    ['openai/gpt-oss-20b', { kind: 'model', name: 'openai/gpt-oss-20b', revision: 'main' }],
    ['openai/gpt-oss-20b@v1.0', { kind: 'model', name: 'openai/gpt-oss-20b', revision: 'v1.0' }],
    ['models/openai/gpt-oss-20b', { kind: 'model', name: 'openai/gpt-oss-20b', revision: 'main' }],
    ['hf://openai/gpt-oss-20b@refs/pr/3', { kind: 'model', name: 'openai/gpt-oss-20b', revision: 'refs/pr/3' }],
    ['datasets/openai/gsm8k@feature/x', { kind: 'dataset', name: 'openai/gsm8k', revision: 'feature/x' }],
    ['gpt2', { kind: 'model', name: 'gpt2', revision: 'main' }],
  ])('%s', (text, wanted) => expect(parseRepo(text)).toEqual(wanted));
  it.each([
    '',
    'a/b/c',
    '../x',
    'a/..',
    'a/b--c',
    '/a/b',
    'a//b',
    'a/b@',
    'a/b@-x',
    'a/b@../..',
    'a/b@x y',
    'a/b@x\ny',
    'a/b@x?y',
    'a/b@x\u0000',
    'spaces/a/b',
    'https://huggingface.co/a/b',
    'a/b#c',
    'a/b?x=1',
    'é/b',
  ])('refuses %j', (text) => {
    expect(() => parseRepo(text)).toThrow(expect.objectContaining({ code: 'hub_repo', exitCode: 2 }));
  });
});

describe('references', () => {
  it.each([
    ['hf://openai/gpt-oss-20b', 'openai/gpt-oss-20b', 'main', ''],
    ['hf://openai/gpt-oss-20b@v1/', 'openai/gpt-oss-20b', 'v1', ''],
    ['hf://o/n@refs/pr/12/sub/dir', 'o/n', 'refs/pr/12', 'sub/dir'],
    ['hf://o/n@feature%2Fx/a.json', 'o/n', 'feature/x', 'a.json'],
    ['hf://datasets/o/n/data/*.parquet', 'datasets/o/n', 'main', 'data/*.parquet'],
    [
      'hf://datasets/o/n@refs/convert/parquet/default/train/0000.parquet',
      'datasets/o/n',
      'refs/convert/parquet',
      'default/train/0000.parquet',
    ],
    ['hf://o/n/a@b.txt', 'o/n', 'main', 'a@b.txt'],
  ])('%s', (text, repo, revision, path) => {
    const found = parseReference(text);
    expect([repoText(found), found.revision, found.path]).toEqual([repo, revision, path]);
    expect(isReference(text)).toBe(true);
    const pinned = pinnedReference(found, COMMIT, path);
    expect(parseReference(pinned)).toEqual({ ...found, revision: COMMIT });
  });
  it.each(['hf://', 'hf://o/n@/x', 'hf://o/n/../x', 'hf://o/n/a/./b', 'hf://o/n/a\\b', 'hf://o/n@%zz', 'hf://@x'])(
    'refuses %j',
    (text) => expect(() => parseReference(text)).toThrow(expect.objectContaining({ code: 'hub_repo' })),
  );
});

describe('names of files', () => {
  const good = [
    'config.json',
    'a/b/c.safetensors',
    '.gitattributes',
    'dir.with.dots/x',
    'ünï/x',
    'a b',
    '-x',
    'ab:c',
    '...',
  ];
  it.each(good)('takes %j', (name) => expect(nameProblem(name)).toBeNull());
  const bad = [
    '',
    '../x',
    'a/../../b',
    'a/..',
    '/etc/passwd',
    '//x',
    'a//b',
    './a',
    'a/',
    'a\u0000b',
    'a\nb',
    'a\rb',
    'a\u001b[2Jb',
    'a\u0085b',
    'a\u2028b',
    'a\\b',
    '..\\x',
    'C:\\x',
    'C:/x',
    'c:x',
    '.git/hooks/post-checkout',
    'a/.GIT/config',
    '.temper-pull/x',
    '.temper-pull.json',
    '.TEMPER-PULL.JSON',
    'x'.repeat(256),
    `${'x/'.repeat(1500)}y`,
    '\ud800',
  ];
  it.each(bad)('refuses %j', (name) => {
    expect(nameProblem(name)).not.toBeNull();
    expect(() => checkNames('o/n', [name], false)).toThrow(
      expect.objectContaining({ code: 'hub_listing', exitCode: 30 }),
    );
  });
  it('what it takes stays in the folder, whatever is offered', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: 'binary' }),
          fc.array(fc.constantFrom('..', '.', 'a', '', '/', '\\', '\n', '~', 'C:')).map((p) => p.join('/')),
        ),
        (name) => {
          if (nameProblem(name) !== null) return;
          const at = posix.join('/target', name);
          expect(at).toBe(`/target/${name}`);
          expect(posix.normalize(at)).toBe(at);
        },
      ),
      { numRuns: 1000 },
    );
  });
  const fold = (name: string): string => name.normalize('NFC').toLowerCase();
  it.each([[['a', 'A']], [['a/x', 'A/y']], [['caf\u00e9', 'cafe\u0301']]])(
    '%j are one where case is folded',
    (names) => {
      expect(clashOf(names, fold)).not.toBeNull();
      expect(clashOf(names, (n) => n)).toBeNull();
    },
  );
  it.each([[['a', 'a/b']], [['a/b', 'a']], [['x', 'x']]])('%j can never be', (names) => {
    expect(clashOf(names, (n) => n)).not.toBeNull();
  });
  it('others do not clash', () => expect(clashOf(['a/b', 'a/c', 'b', 'ab'], fold)).toBeNull());
});

describe('globs', () => {
  const files = [
    'config.json',
    'a/b.json',
    'model.safetensors',
    'original/x.bin',
    'original/y/z',
    'metal/model.bin',
    '.hidden',
  ].map((path) => ({ path, size: 1, algorithm: 'git-sha1' as const, digest: '' }));
  const names = (include: string[], exclude: string[] = []): string[] =>
    selectFiles('o/n', files, { include, exclude }).map((f) => f.path);
  it('original/ and metal/ are left out unless files are named', () => {
    expect(names([])).toEqual(['config.json', 'a/b.json', 'model.safetensors', '.hidden']);
    expect(names([], ['*.json'])).toEqual(['model.safetensors', '.hidden']);
    expect(names(['original/*'])).toEqual(['original/x.bin']);
    expect(names(['original/'])).toEqual(['original/x.bin', 'original/y/z']);
    expect(names(['**'])).toHaveLength(7);
  });
  it('a glob without a slash is the name in any folder', () => {
    expect(names(['*.json'])).toEqual(['config.json', 'a/b.json']);
    expect(names(['./config.json'])).toEqual(['config.json']);
    expect(names(['*.{json,safetensors}'], ['a/**'])).toEqual(['config.json', 'model.safetensors']);
    expect(matcher('!x')('y')).toBe(false);
  });
  it('a glob that is no file is an error, as is nothing to pull', () => {
    expect(() => names(['*.json', '*.safetensor'])).toThrow(/\*\.safetensor is none of its 7 files/);
    expect(() => names([], ['**'])).toThrow(expect.objectContaining({ code: 'hub_no_match', exitCode: 2 }));
  });
});
