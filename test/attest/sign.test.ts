// `temper sign` and what reads it: keys, folders that cannot be signed, shards, and bundles that are none.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { signFolder } from '../../src/attest/attest.js';
import { checkSignature, readBundle, signBundle } from '../../src/attest/bundle.js';
import { preAuthentication } from '../../src/attest/dsse.js';
import { Folder } from '../../src/attest/folder.js';
import { makeEcdsaKey, readSigningKey, readTrust } from '../../src/attest/keys.js';
import { compareFolder, MODEL_SIGNATURE, readManifest } from '../../src/attest/model-signature.js';
import { readStatement, statementOf } from '../../src/attest/statement.js';
import { sha256 } from '../../src/base/digest.js';
import { TemperError } from '../../src/base/errors.js';
import { makeKey } from '../../src/verdict-log/keys.js';
import { temper } from '../cli/run.js';

const root = mkdtempSync(join(tmpdir(), 'temper-sign-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const at = (name: string): string => join(root, name);
const folderOf = (name: string, files: Readonly<Record<string, string>>): string => {
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(join(at(name), file, '..'), { recursive: true });
    writeFileSync(join(at(name), file), text);
  }
  return at(name);
};
beforeAll(() => {
  makeKey(at('ed.pem'));
  makeEcdsaKey(at('ec.pem'));
  makeKey(at('other.pem'));
});
const open = (file: string): ReturnType<typeof readBundle> => readBundle(readFileSync(file), file);
const FILES = { 'adapter_config.json': '{}', 'gate/decision.json': '{}', 'a b/ü.txt': 'x' };

describe.each(['ed.pem', 'ec.pem'])('a folder signed by %s', (key) => {
  it('holds, and by no other key', async () => {
    const dir = folderOf(`signed-${key}`, FILES);
    expect(await signFolder(dir, readSigningKey(at(key)))).toMatchObject({ files: 3 });
    const bundle = open(join(dir, 'model.sig'));
    expect(checkSignature(bundle, { trust: readTrust([at(`${key}.pub`)]) })).toMatchObject({ status: 'ok' });
    expect(checkSignature(bundle, { trust: readTrust([at('other.pem.pub')]) })).toMatchObject({ status: 'failed' });
    expect(checkSignature(bundle, { trust: readTrust([]) })).toMatchObject({ status: 'untrusted' });
    const manifest = readManifest(bundle.envelope.payload, 'model.sig');
    expect(manifest.files.map((f) => f.name)).toEqual(['a b/ü.txt', 'adapter_config.json', 'gate/decision.json']);
    expect(await compareFolder(new Folder(dir), manifest)).toEqual({ problems: [], uncovered: [] });
  });
});
it('OpenSSL agrees that an ECDSA signature is of what DSSE says is signed', async () => {
  const dir = folderOf('openssl', FILES);
  await signFolder(dir, readSigningKey(at('ec.pem')));
  const { envelope } = open(join(dir, 'model.sig'));
  writeFileSync(at('pae'), preAuthentication(envelope.payloadType, envelope.payload));
  writeFileSync(at('pae.sig'), envelope.signature);
  const said = execFileSync('openssl', [
    'dgst',
    '-sha256',
    '-verify',
    at('ec.pem.pub'),
    '-signature',
    at('pae.sig'),
    at('pae'),
  ]);
  expect(said.toString()).toContain('Verified OK');
});
it('the command signs, and says what it cannot', async () => {
  const dir = folderOf('command', FILES);
  const ran = await temper(['sign', dir, '--key', at('ed.pem'), '--bare', '--json']);
  expect(ran, ran.stderr).toMatchObject({ code: 0 });
  expect(JSON.parse(ran.stdout)).toMatchObject({ files: 3, algorithm: 'Ed25519' });
  const fails = async (code: string, ...args: string[]): Promise<void> => {
    const failed = await temper(['sign', ...args, '--bare', '--json']);
    expect([failed.code, (JSON.parse(failed.stdout) as { error: { code: string } }).error.code]).toEqual([2, code]);
  };
  await fails('sign_key', dir, '--key', at('none.pem'));
  await fails('sign_key', dir, '--key', at('ed.pem.pub'));
  await fails('sign_refused', dir, '--key', at('ed.pem'), '--sigstore');
  await fails('path_not_found', at('nowhere'), '--key', at('ed.pem'));
  mkdirSync(at('empty'));
  await fails('sign_refused', at('empty'), '--key', at('ed.pem'));
  symlinkSync(at('ed.pem'), join(dir, 'link'));
  await fails('sign_refused', dir, '--key', at('ed.pem'));
});

describe('manifests', () => {
  const root256 = (digests: readonly string[]): string =>
    sha256(Buffer.concat(digests.map((d) => Buffer.from(d, 'hex'))));
  const manifest = (
    resources: { name: string; algorithm: string; digest: string }[],
    serialization: object,
  ): Buffer => {
    const key = readSigningKey(at('ed.pem'));
    const subject = [{ name: 'm', digest: { sha256: root256(resources.map((r) => r.digest)) } }];
    const text = signBundle(statementOf(subject, MODEL_SIGNATURE, { resources, serialization } as never), key);
    return readBundle(Buffer.from(text), 'x').envelope.payload;
  };
  const files = { method: 'files', hash_type: 'sha256', allow_symlinks: false };
  const shards = { method: 'shards', hash_type: 'sha256-sharded-4', shard_size: 4, allow_symlinks: false };
  const shard = (
    name: string,
    text: string,
    algorithm = 'sha256-sharded-4',
  ): { name: string; algorithm: string; digest: string } => ({
    name,
    algorithm,
    digest: sha256(text),
  });
  it('in shards are compared shard by shard', async () => {
    const dir = folderOf('shards', { f: '0123456789' });
    const payload = manifest([shard('f:0:4', '0123'), shard('f:4:8', '4567'), shard('f:8:10', '89')], shards);
    expect((await compareFolder(new Folder(dir), readManifest(payload, 'x'))).problems).toEqual([]);
    for (const text of ['0123456788', '01234567890', '012345678', '']) {
      writeFileSync(join(dir, 'f'), text);
      expect((await compareFolder(new Folder(dir), readManifest(payload, 'x'))).problems).toEqual([
        { name: 'f', what: 'changed' },
      ]);
    }
  });
  it.each([
    ['a gap', [shard('f:0:4', 'a'), shard('f:8:10', 'b')], shards],
    ['a shard twice', [shard('f:0:4', 'a'), shard('f:2:6', 'b')], shards],
    ['a shard that is too long', [shard('f:0:5', 'a')], shards],
    ['no offsets', [shard('f', 'a')], shards],
    ['another hash than it says', [shard('f', 'a', 'md5')], files],
    ['a hash that nobody knows', [shard('f', 'a', 'blake3')], { ...files, hash_type: 'blake3' }],
    ['a name that leaves the folder', [shard('../f', 'a', 'sha256')], files],
    ['an absolute name', [shard('/f', 'a', 'sha256')], files],
    ['a file twice', [shard('f', 'a', 'sha256'), shard('f', 'b', 'sha256')], files],
    ['no file', [], files],
    ['an unknown method', [shard('f', 'a', 'sha256')], { ...files, method: 'tensors' }],
  ])('with %s are refused', (_, resources, serialization) => {
    expect(() => readManifest(manifest(resources, serialization), 'x')).toThrow(
      expect.objectContaining({ code: 'bad_manifest' }),
    );
  });
  it('of BLAKE2b hold', async () => {
    const dir = folderOf('blake', { f: 'abc' });
    const digest = await new Folder(dir).hash('f', 'blake2b512');
    const payload = manifest([{ name: 'f', algorithm: 'blake2b', digest }], { ...files, hash_type: 'blake2b' });
    expect((await compareFolder(new Folder(dir), readManifest(payload, 'x'))).problems).toEqual([]);
  });
  it('let a link be where they say so, and only inside the folder', async () => {
    const dir = folderOf('links', { f: 'abc' });
    symlinkSync('f', join(dir, 'inside'));
    const payload = (links: boolean): Buffer =>
      manifest([shard('f', 'abc', 'sha256'), shard('inside', 'abc', 'sha256')], { ...files, allow_symlinks: links });
    const problems = async (links: boolean): Promise<unknown> =>
      (await compareFolder(new Folder(dir), readManifest(payload(links), 'x'))).problems;
    expect(await problems(true)).toEqual([]);
    expect(await problems(false)).toEqual([{ name: 'inside', what: 'link' }]);
    rmSync(join(dir, 'inside'));
    writeFileSync(at('outside'), 'abc');
    symlinkSync(at('outside'), join(dir, 'inside'));
    expect(await problems(true)).toEqual([{ name: 'inside', what: 'link' }]);
  });
});

it('whatever stands in a bundle, it is read or refused by name', async () => {
  const dir = folderOf('fuzz', FILES);
  await signFolder(dir, readSigningKey(at('ec.pem')));
  const good = readFileSync(join(dir, 'model.sig'));
  const trust = readTrust([at('ec.pem.pub')]);
  const look = (bytes: Uint8Array): void => {
    try {
      const bundle = readBundle(bytes, 'x');
      checkSignature(bundle, { trust });
      readManifest(bundle.envelope.payload, 'x');
    } catch (e) {
      expect(e).toBeInstanceOf(TemperError);
    }
  };
  // Any JSON, any bytes, and a good one with a piece of it replaced.
  fc.assert(
    fc.property(fc.json(), (text) => look(Buffer.from(text))),
    { numRuns: 300 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), look), { numRuns: 300 });
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(40), fc.uint8Array({ maxLength: 20 }), (from, length, piece) =>
      look(Buffer.concat([good.subarray(0, from), piece, good.subarray(from + length)])),
    ),
    { numRuns: 300 },
  );
  // Statements of any form that are signed well.
  const key = readSigningKey(at('ec.pem'));
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (subject, predicate) =>
      look(
        Buffer.from(
          signBundle(
            { _type: 'https://in-toto.io/Statement/v1', subject, predicateType: MODEL_SIGNATURE, predicate } as never,
            key,
          ),
        ),
      ),
    ),
    { numRuns: 200 },
  );
  expect(() => readStatement(Buffer.from('{"a":1,"a":2}'), 'x')).toThrow(
    expect.objectContaining({ code: 'bad_statement' }),
  );
});
