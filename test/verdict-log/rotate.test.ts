// A key that is handed over: the log goes on under the new one, and nothing that the old one signs later counts.
import { appendFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { sha256 } from '../../src/base/digest.js';
import { contentDigest } from '../../src/verdict-log/content.js';
import { KeyRing, keysFile, readLog } from '../../src/verdict-log/key-ring.js';
import { makeKey, publicFile, readSigner, readVerifier } from '../../src/verdict-log/keys.js';
import { descriptorFile } from '../../src/verdict-log/layout.js';
import { checkProof, checkpointsOf, proveGrowth, proveRecord } from '../../src/verdict-log/prove.js';
import { rotateLogKey } from '../../src/verdict-log/rotate.js';
import { showRecords } from '../../src/verdict-log/show.js';
import { type LogReport, type VerifyLogRequest, verifyLog } from '../../src/verdict-log/verify.js';
import { filesOf, fill, linesOf, open, scratch } from './logs.js';

const at = scratch('rotate');
const [first, second, third, stranger] = ['first', 'second', 'third', 'stranger'].map((name) => at(`${name}.pem`)) as [
  string,
  string,
  string,
  string,
];
const dir = at('log');
let receipts: readonly string[] = [];
let since = '';
beforeAll(async () => {
  for (const file of [first, second, third, stranger]) makeKey(file);
  const one = await open(dir, { key: first, segmentBytes: 3000 });
  const other = await open(dir, { key: first });
  receipts = [...(await fill(one, 6)), ...(await fill(other, 2))];
  await one.close();
  await other.close();
  since = at('since');
  writeFileSync(since, checkpointsOf(dir));
  await rotateLogKey({ dir, key: first, to: second });
  const next = await open(dir, { key: second, segmentBytes: 3000 });
  receipts = [...receipts, ...(await fill(next, 6))];
  await next.close();
  await rotateLogKey({ dir, key: second, to: third });
  const last = await open(dir, { key: third });
  receipts = [...receipts, ...(await fill(last, 2))];
  await last.close();
});
const check = (where: string, more: Partial<VerifyLogRequest> = {}): LogReport | Error => {
  try {
    return verifyLog({ dir: where, key: publicFile(third), everySignature: true, ...more });
  } catch (e) {
    return e as Error;
  }
};
const isFound = (report: LogReport | Error): boolean => report instanceof Error || !report.ok;
function copyOf(change: (copy: string) => void): string {
  const copy = at('copy');
  rmSync(copy, { recursive: true, force: true });
  cpSync(dir, copy, { recursive: true });
  change(copy);
  return copy;
}

it('the log is whole by its last key, and by those before it, which is said', () => {
  expect(check(dir, { since: [since], closed: true })).toMatchObject({
    ok: true,
    trust: 'given',
    notes: [],
    handovers: [{ number: 1 }, { number: 2 }],
  });
  for (const key of [first, second]) {
    const report = check(dir, { key: publicFile(key) });
    expect(report).toMatchObject({ ok: true });
    expect((report as LogReport).notes.join()).toMatch(/was handed over/);
  }
  expect(isFound(check(dir, { key: publicFile(stranger) }))).toBe(true);
  expect(showRecords({ dir, last: 100, kind: 'verdict' })).toHaveLength(16);
});

it('writes with the last key alone', async () => {
  for (const key of [first, second, stranger])
    await expect(open(dir, { key })).rejects.toMatchObject({ code: 'log_key' });
  await expect(rotateLogKey({ dir, key: second, to: stranger })).rejects.toMatchObject({ code: 'log_key' });
  // A key that was there before may be known to others.
  await expect(rotateLogKey({ dir, key: third, to: first })).rejects.toMatchObject({ code: 'log_failed' });
  expect(readFileSync(keysFile(dir), 'utf8').split('\n')).toHaveLength(3);
});

it('is not handed over while somebody writes it', async () => {
  const busy = at('busy');
  const log = await open(busy, { key: first });
  await expect(rotateLogKey({ dir: busy, key: first, to: second })).rejects.toMatchObject({ code: 'log_failed' });
  expect(existsSync(keysFile(busy))).toBe(false);
  await fill(log, 1);
  await log.close();
  expect(await rotateLogKey({ dir: busy, key: first, to: second })).toMatchObject({ number: 1, heads: [{ size: 3 }] });
  expect(verifyLog({ dir: busy, key: publicFile(second), closed: true })).toMatchObject({ ok: true });
  await expect(rotateLogKey({ dir: at('none'), key: first, to: second })).rejects.toMatchObject({
    code: 'log_missing',
  });
});

it('a key that lay in the folder can be handed over to one that does not', async () => {
  const own = at('own');
  const log = await open(own);
  await fill(log, 1);
  await log.close();
  await rotateLogKey({ dir: own, to: second });
  await expect(open(own)).rejects.toMatchObject({ code: 'log_key' });
  const next = await open(own, { key: second });
  expect(next.key).toBe(verifyLog({ dir: own, key: publicFile(second) }).key);
  await next.close();
});

describe('nothing that the old key signs later counts', () => {
  /** The log as it was before the handover, gone on with by who has the old key. */
  const forked = async (keepKeys: boolean): Promise<string> => {
    const copy = copyOf(() => {});
    const keys = readFileSync(keysFile(copy));
    rmSync(keysFile(copy));
    const [ring] = [readLog(dir).ring];
    // Back to the first handover's heads, by the lines of records.
    for (const { lane, size } of ring.handovers[0]?.heads ?? []) {
      let seen = false;
      for (const file of filesOf(copy).filter((f) => f.startsWith(String(lane).padStart(4, '0')))) {
        if (seen) {
          rmSync(join(copy, file));
          continue;
        }
        const lines = linesOf(join(copy, file));
        const end = lines.findIndex((l) =>
          l.includes(`"checkpoint":"${ring.origin}/${String(lane).padStart(4, '0')}\\n${size}\\n`),
        );
        if (end < 0) continue;
        seen = true;
        writeFileSync(join(copy, file), `${lines.slice(0, end + 1).join('\n')}\n`);
      }
    }
    const log = await open(copy, { key: first });
    await fill(log, 20);
    await log.close();
    expect(verifyLog({ dir: copy, key: publicFile(first) })).toMatchObject({ ok: true });
    if (keepKeys) writeFileSync(keysFile(copy), keys);
    return copy;
  };
  it('with the handovers beside it', async () => {
    const copy = await forked(true);
    for (const key of [first, second, third]) expect(isFound(check(copy, { key: publicFile(key) }))).toBe(true);
  });
  it('without them, by the new key and by what was kept', async () => {
    const copy = await forked(false);
    for (const key of [second, third]) expect(isFound(check(copy, { key: publicFile(key) }))).toBe(true);
    const kept = at('kept');
    writeFileSync(kept, checkpointsOf(dir));
    expect(isFound(check(copy, { key: publicFile(first), since: [kept] }))).toBe(true);
  });
});

describe('handovers that were altered', () => {
  it('every third byte', () => {
    const good = readFileSync(keysFile(dir));
    const copy = copyOf(() => {});
    for (let i = 0; i < good.length; i += 3) {
      const own = Buffer.from(good);
      own[i] = (good[i] as number) ^ (1 << (i % 7));
      writeFileSync(keysFile(copy), own);
      expect(isFound(check(copy)), `byte ${i}`).toBe(true);
    }
    writeFileSync(keysFile(copy), good);
    expect(isFound(check(copy))).toBe(false);
  });
  it('dropped, doubled, swapped, cut off, emptied', () => {
    const [a = '', b = ''] = readFileSync(keysFile(dir), 'utf8').split('\n');
    for (const text of [
      `${a}\n`,
      `${b}\n`,
      `${b}\n${a}\n`,
      `${a}\n${a}\n${b}\n`,
      `${a}\n${b}`,
      `${a}\n${b}\n${b}\n`,
      '',
      '\n',
    ])
      expect(isFound(check(copyOf((copy) => writeFileSync(keysFile(copy), text)))), text.slice(0, 20)).toBe(true);
    expect(isFound(check(copyOf((copy) => rmSync(keysFile(copy)))))).toBe(true);
  });
  it('made by somebody without the key, or to a key of somebody without it', () => {
    const { ring } = readLog(dir);
    const [thief, owner] = [readSigner(stranger), readSigner(third)];
    const heads = ring.handovers.at(-1)?.heads ?? [];
    const now = new Date().toISOString();
    const forged = ring
      .handOver(thief, thief, heads, now)
      .replace(/"from":"[^"]+"/, `"from":"${ring.handovers.at(-1)?.to}"`);
    const bare = JSON.parse(ring.handOver(owner, thief, heads, now)) as { signatures: string[] };
    bare.signatures[1] = bare.signatures[0] as string;
    for (const line of [forged, JSON.stringify(bare), ring.handOver(thief, thief, heads, now)]) {
      const copy = copyOf((path) => appendFileSync(keysFile(path), `${line}\n`));
      expect(check(copy)).toMatchObject({ code: 'log_altered' });
    }
    // One by the owner that knows less than is there, or of another log.
    expect(new KeyRing('temper-log/0000000000000000', ring.keys[0] as never).take(ring.lines[0] as string)).toMatch(
      /another log/,
    );
    const less = ring.handOver(owner, thief, [], now);
    expect(check(copyOf((path) => appendFileSync(keysFile(path), `${less}\n`)))).toMatchObject({ code: 'log_altered' });
  });
  it('of another log', async () => {
    const other = at('other');
    mkdirSync(other);
    const log = await open(other, { key: first });
    await fill(log, 2);
    await log.close();
    await rotateLogKey({ dir: other, key: first, to: second });
    const text = readFileSync(keysFile(other), 'utf8');
    expect(isFound(check(copyOf((copy) => writeFileSync(keysFile(copy), text))))).toBe(true);
    expect(readFileSync(descriptorFile(dir), 'utf8')).not.toBe(readFileSync(descriptorFile(other), 'utf8'));
  });
});

describe('proofs', () => {
  it('of records before and after, checked by any key of the log and by no other', () => {
    for (const receipt of [receipts[0], receipts[7], receipts[9], receipts.at(-1)] as string[]) {
      const proof: unknown = JSON.parse(JSON.stringify(proveRecord({ dir, receipt })));
      for (const key of [first, second, third])
        expect(checkProof(proof, readVerifier(publicFile(key)))).toMatchObject({ kind: 'record', receipt });
      expect(() => checkProof(proof, readVerifier(publicFile(stranger)))).toThrow(/not signed by the key/);
      const { keys: _, ...bare } = proof as { keys: string[] };
      // The second stream ended before the first handover.
      if (receipt.split('.')[1] === '1') continue;
      expect(() => checkProof(bare, readVerifier(publicFile(first)))).toThrow(/not signed by the key/);
    }
  });
  it('that the log goes on from a checkpoint of the old key', () => {
    const proofs = proveGrowth({ dir, since });
    expect(proofs).toHaveLength(2);
    for (const proof of proofs)
      for (const key of [first, third])
        expect(checkProof(JSON.parse(JSON.stringify(proof)), readVerifier(publicFile(key)))).toMatchObject({
          kind: 'growth',
        });
  });
  it('are opened by the key of their record', async () => {
    const secret = at('secret');
    const text = sha256('what was said');
    const log = await open(secret, { key: first });
    const { receipt } = await log.append('verdict', { nonce: 'n', contents: { final: log.digest('n', text) } });
    await log.close();
    await rotateLogKey({ dir: secret, key: first, to: second });
    const proof = proveRecord({ dir: secret, receipt, open: first });
    expect(checkProof(JSON.parse(JSON.stringify(proof)), readVerifier(publicFile(second)), text).matches).toEqual([
      'final',
    ]);
    expect(contentDigest(Buffer.from(proof.salt ?? '', 'hex'), text)).toHaveLength(64);
    expect(() => proveRecord({ dir: secret, receipt, open: second })).toThrow(
      expect.objectContaining({ code: 'log_key' }),
    );
  });
});
