// The public test vectors of OpenSSF model signing: every valid one is accepted, every invalid one refused by name.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkSignature, readBundle, type SignatureResult } from '../../src/attest/bundle.js';
import { Folder } from '../../src/attest/folder.js';
import { readTrust, type Trust } from '../../src/attest/keys.js';
import { compareFolder, type ManifestResult, readManifest } from '../../src/attest/model-signature.js';
import { packageRoot } from '../../src/base/machine.js';
import { FULCIO, REKOR_KEY, VECTOR_KEY, VECTOR_ROOT } from './public-keys.js';

const DATA = process.env.TEMPER_SHARED_DATA ?? join(packageRoot, '../shared/data');
const VECTORS = join(DATA, 'model-signing', 'test-vectors', 'v1.0');
const root = mkdtempSync(join(tmpdir(), 'temper-vectors-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let trust: Trust;
const IDENTITY = 'stefanb@us.ibm.com';
beforeAll(() => {
  const files = Object.entries({ key: VECTOR_KEY, root: VECTOR_ROOT, rekor: REKOR_KEY, fulcio: FULCIO });
  for (const [name, text] of files) writeFileSync(join(root, `${name}.pem`), text);
  trust = readTrust(files.map(([name]) => join(root, `${name}.pem`)));
});
const bytesOf = (name: string): Buffer => readFileSync(join(VECTORS, name));
const check = (name: string, by: Trust = trust, identity?: string): SignatureResult =>
  checkSignature(readBundle(bytesOf(name), name), { trust: by, ...(identity === undefined ? {} : { identity }) });
/** The folders that were signed: two files of a line, and one that is left out. */
function folderOf(name: string, files: Readonly<Record<string, string>>): string {
  const dir = join(root, name);
  mkdirSync(dir, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, file), text);
  return dir;
}
const compare = (name: string, dir: string): Promise<ManifestResult> =>
  compareFolder(new Folder(dir), readManifest(readBundle(bytesOf(name), name).envelope.payload, name));

describe.skipIf(!existsSync(VECTORS))('as published, skipped where ../shared/data is absent', () => {
  const SIGNED = { 'signme-1': 'signme-1\n', 'signme-2': 'signme-2', 'ignore-me': 'anything' };
  it('are all of them looked at', () => {
    const names = (readdirSync(VECTORS, { recursive: true }) as string[]).filter((n) => n.endsWith('.json')).sort();
    expect(names).toEqual([
      'invalid-payload/wrong-predicate.bundle.json',
      'invalid/empty.bundle.json',
      'invalid/missing-envelope.bundle.json',
      'invalid/missing-tlog-entries.bundle.json',
      'invalid/missing-verification-material.bundle.json',
      'valid/certificate.bundle.json',
      'valid/key.bundle.json',
      'valid/sigstore.bundle.json',
    ]);
  });
  it('key: the signature and the folder hold', async () => {
    expect(check('valid/key.bundle.json')).toMatchObject({ status: 'ok', why: null });
    const dir = folderOf('key', SIGNED);
    expect(await compare('valid/key.bundle.json', dir)).toEqual({ problems: [], uncovered: ['ignore-me'] });
    writeFileSync(join(dir, 'more'), '');
    writeFileSync(join(dir, 'signme-2'), 'signme-3');
    rmSync(join(dir, 'signme-1'));
    expect((await compare('valid/key.bundle.json', dir)).problems).toEqual([
      { name: 'more', what: 'added' },
      { name: 'signme-1', what: 'missing' },
      { name: 'signme-2', what: 'changed' },
    ]);
  });
  it('certificate: the chain ends in its root, and in no other', async () => {
    const name = 'valid/certificate.bundle.json';
    expect(check(name)).toMatchObject({ status: 'ok' });
    expect(await compare(name, folderOf('certificate', SIGNED))).toEqual({ problems: [], uncovered: ['ignore-me'] });
    expect(check(name, { keys: [], certificates: [] })).toMatchObject({ status: 'untrusted' });
    const other = { keys: [], certificates: trust.certificates.filter((c) => c.subject.includes('sigstore')) };
    expect(check(name, other)).toMatchObject({
      status: 'failed',
      why: expect.stringContaining('no certificate that is trusted'),
    });
  });
  it('sigstore: the entry is in the log, signed by it, and the certificate was of that moment', async () => {
    const name = 'valid/sigstore.bundle.json';
    expect(check(name, trust, IDENTITY)).toMatchObject({ status: 'ok', signer: expect.stringContaining(IDENTITY) });
    expect(check(name)).toMatchObject({ status: 'untrusted', why: expect.stringContaining('anybody') });
    expect(check(name, trust, 'somebody@example.com')).toMatchObject({ status: 'failed' });
    expect(check(name, { ...trust, keys: [] }, IDENTITY)).toMatchObject({ status: 'untrusted' });
    const dir = folderOf('sigstore', { ...SIGNED, 'signme-1': 'signme-1', 'model.sig': '' });
    expect(await compare(name, dir)).toEqual({ problems: [], uncovered: ['ignore-me'] });
  });
  it.each([
    ['invalid/empty.bundle.json', 'is empty'],
    ['invalid/missing-envelope.bundle.json', 'has no dsseEnvelope'],
    ['invalid/missing-tlog-entries.bundle.json', 'has no tlogEntries'],
    ['invalid/missing-verification-material.bundle.json', 'has no verificationMaterial'],
  ])('%s is refused: %s', (name, why) => {
    expect(() => readBundle(bytesOf(name), name)).toThrow(
      expect.objectContaining({ code: 'bad_bundle', message: expect.stringContaining(why) }),
    );
  });
  it('wrong-predicate is refused, for its signature and for its predicate', () => {
    const name = 'invalid-payload/wrong-predicate.bundle.json';
    expect(check(name)).toMatchObject({ status: 'failed' });
    expect(() => readManifest(readBundle(bytesOf(name), name).envelope.payload, name)).toThrow(
      expect.objectContaining({
        code: 'bad_manifest',
        message: expect.stringContaining('https://example.com/wrong-predicate'),
      }),
    );
  });
  it.each([
    ['key', 1],
    ['certificate', 5],
    ['sigstore', 11],
  ])('no byte of %s can change unseen (every %d)', (kind, step) => {
    const name = `valid/${kind}.bundle.json`;
    const compact = Buffer.from(JSON.stringify(JSON.parse(bytesOf(name).toString())));
    // Timestamps of RFC 3161 are not looked at, which the result says.
    const from = compact.indexOf('"signedTimestamp"'),
      to = from < 0 ? -1 : compact.indexOf('}', from);
    const unseen: number[] = [];
    for (let i = 0; i < compact.length; i += step) {
      if (i >= from && i < to) continue;
      const changed = Buffer.from(compact);
      changed[i] = (changed[i] ?? 0) ^ (1 << (i % 8));
      try {
        if (checkSignature(readBundle(changed, name), { trust, identity: IDENTITY }).status === 'ok') unseen.push(i);
      } catch (e) {
        expect(e).toMatchObject({ code: 'bad_bundle' });
      }
    }
    expect(unseen.map((i) => compact.subarray(Math.max(i - 30, 0), i + 5).toString())).toEqual([]);
  });
});
