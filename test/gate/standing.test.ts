// How an adapter stands before the gate: digests that follow what it is and not how it is written, evidence that is
// decided anew, overrides and revocations that are signed.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sha256 } from '../../src/base/digest.js';
import { IntegrityError } from '../../src/base/errors.js';
import { lockFolder } from '../../src/base/lock.js';
import { wantedBy } from '../../src/compose/gate-tools.js';
import { gateCard } from '../../src/export/gate-note.js';
import { OVERRIDE_FILE, readOverride, signOverride } from '../../src/gate/override.js';
import { gateStandingOf, type Redecide } from '../../src/gate/record.js';
import { readRevocations, revocationOf, revoke, seenLists, takeRevocations } from '../../src/gate/revocations.js';
import { chatFormatDigest } from '../../src/harmony/format-digest.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { digestPeft, digestPeftFolder } from '../../src/lora/adapter-digest.js';
import { rewritePeft, writePeft } from '../../src/lora/peft.js';
import { openPeft } from '../../src/lora/peft-file.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { readConfig } from '../../src/model/config.js';
import { ops } from '../../src/native/ops.js';
import type { Tensor } from '../../src/native/tensor.js';
import type { Standing } from '../../src/runs/standing.js';
import { mergeRecipeDigest, type Subject, subjectOf } from '../../src/runs/subject.js';
import { makeKey, readVerifier } from '../../src/verdict-log/keys.js';
import { goldenRoot } from '../model/golden.js';

const root = mkdtempSync(join(tmpdir(), 'temper-standing-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const base = join(goldenRoot, 'odd');
const config = readConfig(base);
const hex = (text: string): string => `sha256:${sha256(text)}`;
const folder = join(root, 'adapter');

beforeAll(async () => {
  const choice = { rank: 2, alpha: 4, targets: ['attention', 'experts'], rsLora: false, dropout: 0.1 };
  const a = createAdapter(config, adapterSpec(config, choice), { seed: 1 });
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i] as Tensor, 7 + i, -0.2, 0.2);
  });
  await writePeft(a, folder, { baseModel: 'us/odd' });
  a.close();
});
const opened = async (at: string): Promise<string> => {
  using file = openPeft(at, config);
  return await digestPeft(file);
};
function edited(name: string, edit: (at: string) => void): string {
  const at = join(root, name);
  cpSync(folder, at, { recursive: true });
  edit(at);
  return at;
}
const editConfig = (at: string, change: (c: Record<string, unknown>) => void): void => {
  const file = join(at, 'adapter_config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  change(config);
  writeFileSync(file, JSON.stringify(config));
};

describe('the digest of an adapter', () => {
  it('is of what it is: the same of a folder, of what is open, and of what is written again', async () => {
    const digest = await digestPeftFolder(folder);
    expect(await opened(folder)).toBe(digest);
    const again = join(root, 'again');
    mkdirSync(again);
    using file = openPeft(folder, config);
    rewritePeft(file, again, { baseModel: 'openai/other' });
    expect(await digestPeftFolder(again)).toBe(digest);
    const named = edited('named', (at) =>
      editConfig(at, (c) => Object.assign(c, { base_model_name_or_path: 'x', inference_mode: false })),
    );
    expect(await digestPeftFolder(named)).toBe(digest);
  });

  it('is another for another strength, layout, shape or number', async () => {
    const digest = await digestPeftFolder(folder);
    const alpha = edited('alpha', (at) => editConfig(at, (c) => Object.assign(c, { lora_alpha: 8 })));
    expect(await digestPeftFolder(alpha)).not.toBe(digest);
    expect(await opened(alpha)).not.toBe(digest);
    const bytes = readFileSync(join(folder, 'adapter_model.safetensors'));
    const header = Number(bytes.readBigUInt64LE(0));
    for (let i = 0; i < 200; i++) {
      const place = 8 + header + Math.floor(((bytes.length - 8 - header) * i) / 200);
      const flipped = Buffer.from(bytes);
      flipped[place] = (flipped[place] as number) ^ 1;
      const at = join(root, 'flipped');
      mkdirSync(at, { recursive: true });
      writeFileSync(join(at, 'adapter_model.safetensors'), flipped);
      cpSync(join(folder, 'adapter_config.json'), join(at, 'adapter_config.json'));
      expect(await digestPeftFolder(at), `byte ${place}`).not.toBe(digest);
    }
    const swapped = Buffer.from(bytes.toString('latin1').replace('"natural"', '"swapped"'), 'latin1');
    const at = edited('swapped', (to) => writeFileSync(join(to, 'adapter_model.safetensors'), swapped));
    expect(await digestPeftFolder(at)).not.toBe(digest);
  });

  it('of base, tokenizer, chat format and merge belong to the subject', async () => {
    const subject = await subjectOf({ model: base, adapter: folder });
    expect(subject).toMatchObject({
      adapter: `sha256:${await digestPeftFolder(folder)}`,
      tokenizer: hex(''),
      chatFormat: `sha256:${chatFormatDigest()}`,
      mergeRecipe: null,
    });
    expect(chatFormatDigest()).toMatch(/^[0-9a-f]{64}$/);
    const merged = await subjectOf({ model: base, adapter: folder, merge: 'mxfp4' });
    expect(merged).toEqual({ ...subject, mergeRecipe: mergeRecipeDigest('mxfp4') });
  });
});

const SUBJECT: Subject = {
  adapter: hex('adapter'),
  base: hex('base'),
  tokenizer: hex('tokenizer'),
  chatFormat: hex('format'),
  mergeRecipe: null,
};
const OUTCOMES = '{"metric":"harm","slice":"all","prompt":"a","sample":0,"arm":"base","value":0}\n';
const MADE = {
  decision: 'PASS',
  reasons: [],
  lock: hex('lock'),
  suite: hex('suite'),
  metrics: [{ metric: 'harm', low: -0.1, high: 0.01 }],
};
const redecide: Redecide = async () => MADE;
function evidence(over: object = {}): string {
  const at = mkdtempSync(join(root, 'gate-'));
  const record = { schema: 'x', ...MADE, outcomes: hex(OUTCOMES), subject: SUBJECT, ...over };
  writeFileSync(join(at, 'decision.json'), JSON.stringify(record, null, 1));
  writeFileSync(join(at, 'outcomes.jsonl'), OUTCOMES);
  return at;
}
const standing = (at: string | null, subject = SUBJECT, made: Redecide = redecide): Promise<Standing> =>
  gateStandingOf({ folder: at, subject, redecide: made });

describe('evidence', () => {
  it('passes for exactly what was judged', async () => {
    expect(await standing(evidence())).toMatchObject({ status: 'passed', decision: 'PASS', reasons: [] });
    expect(await standing(null)).toMatchObject({ status: 'absent' });
    expect(await standing(join(root, 'nowhere'))).toMatchObject({ status: 'absent' });
  });

  it('that people had a say in says so, and so does the card', async () => {
    const labelled = { pairs: 9, by: ['Ada'], unbound: 0, changed: [], without: 'FAIL' };
    const passed = await standing(evidence({ labelled }), SUBJECT, async () => ({ ...MADE, labelled }));
    expect(passed).toMatchObject({ status: 'passed', labelled: { pairs: 9, by: ['Ada'], without: 'FAIL' } });
    const card = (of: Standing): string => gateCard({ standing: of, subject: SUBJECT }, (text) => text);
    expect(card(passed)).toContain(
      'of 9 pairs people (Ada) said what counts in place of the judge; by the judge alone',
    );
    expect(card(await standing(evidence()))).not.toContain('people');
    // What is recorded of them is held against what is made anew.
    const softer = evidence({ labelled: { ...labelled, without: 'PASS' } });
    expect(await standing(softer, SUBJECT, async () => ({ ...MADE, labelled }))).toMatchObject({ status: 'damaged' });
  });

  it.each(['adapter', 'base', 'tokenizer', 'chatFormat', 'mergeRecipe'] as const)(
    'of another %s is stale',
    async (part) => {
      const other = await standing(evidence(), { ...SUBJECT, [part]: hex('other') });
      expect(other).toMatchObject({ status: 'stale', decision: 'PASS' });
      expect(other.reasons).toHaveLength(1);
      const none = await standing(evidence({ subject: { ...SUBJECT, [part]: undefined } }));
      expect(none.status).toBe(part === 'mergeRecipe' ? 'passed' : 'damaged');
    },
  );

  it('of a merged checkpoint beside the adapter passes for both, and for no other merge', async () => {
    const merged = { recipe: mergeRecipeDigest('mxfp4'), checkpoint: hex('checkpoint') };
    const metrics = [...MADE.metrics, { ...MADE.metrics[0], arm: 'merged' }];
    const at = evidence({ metrics, subject: { ...SUBJECT, merged } });
    const made: Redecide = async () => ({ ...MADE, metrics });
    const adapter = await standing(at, SUBJECT, made);
    expect([adapter.status, adapter.checkpoint]).toEqual(['passed', undefined]);
    const asked = await standing(at, { ...SUBJECT, mergeRecipe: merged.recipe }, made);
    expect([asked.status, asked.checkpoint]).toEqual(['passed', merged.checkpoint]);
    expect((await standing(at, { ...SUBJECT, mergeRecipe: mergeRecipeDigest('bf16') }, made)).status).toBe('stale');
    expect((await standing(at, { ...SUBJECT, adapter: hex('x'), mergeRecipe: merged.recipe }, made)).status).toBe(
      'stale',
    );
    // A name in the record lets nothing out that no outcome is of.
    const forged = evidence({ subject: { ...SUBJECT, merged } });
    expect((await standing(forged, { ...SUBJECT, mergeRecipe: merged.recipe })).status).toBe('damaged');
    expect((await standing(evidence({ metrics }), SUBJECT, made)).status).toBe('damaged');
  });

  it('under another lock than the recipe wants is stale', async () => {
    const request = { folder: evidence(), subject: SUBJECT, redecide };
    expect((await gateStandingOf({ ...request, wanted: { lock: MADE.lock } })).status).toBe('passed');
    expect((await gateStandingOf({ ...request, wanted: { lock: hex('other') } })).status).toBe('stale');
    // Whoever takes the lock away lets nothing out by it.
    const gone = await gateStandingOf({
      ...request,
      wanted: wantedBy({ suite: join(root, 'no.yaml'), lock: join(root, 'no.json') }),
    });
    expect([gone.status, gone.reasons.length]).toEqual(['stale', 2]);
    expect(wantedBy('off')).toBeUndefined();
  });

  it.each(['FAIL', 'INCONCLUSIVE', 'ERROR'])('that decided %s fails, and says why', async (decision) => {
    const reasons = ['harm: the bound is over its margin'];
    const at = evidence({ decision, reasons });
    const found = await standing(at, SUBJECT, async () => ({ ...MADE, decision, reasons }));
    expect(found).toMatchObject({ status: 'failed', decision });
    expect(found.reasons).toEqual([`the gate decided ${decision}`, ...reasons]);
  });

  it('that does not follow from its outcomes is damaged', async () => {
    const forged = await standing(evidence(), SUBJECT, async () => ({ ...MADE, decision: 'FAIL' }));
    expect(forged).toMatchObject({ status: 'damaged', decision: null });
    expect(forged.reasons[0]).toContain('decision is not what the outcomes');
    const metrics = [{ metric: 'harm', low: -0.1, high: 0.02 }];
    expect((await standing(evidence(), SUBJECT, async () => ({ ...MADE, metrics }))).status).toBe('damaged');
    // What no JSON has, or is nested without end, is none of it, and no fault of the program.
    const deep = JSON.parse(`${'['.repeat(100)}${']'.repeat(100)}`) as unknown;
    for (const odd of [{ reasons: ['\ud800'] }, { metrics: [{ metric: 'harm', low: deep, high: 0.01 }] }])
      expect((await standing(evidence(odd))).status).toBe('damaged');
  });

  it('of which any byte was changed never passes as it was', async () => {
    const at = evidence();
    for (const name of ['decision.json', 'outcomes.jsonl']) {
      const file = join(at, name),
        bytes = readFileSync(file);
      for (let i = 0; i < bytes.length; i++) {
        const flipped = Buffer.from(bytes);
        flipped[i] = (flipped[i] as number) ^ 1;
        writeFileSync(file, flipped);
        const found = await standing(at);
        // Another writing of the same passes under another digest, which temper.json beside it does not name.
        if (found.status === 'passed') {
          expect(name).toBe('decision.json');
          expect(found.digests?.decision).not.toBe(`sha256:${sha256(bytes)}`);
        }
      }
      writeFileSync(file, bytes);
    }
    expect((await standing(at)).status).toBe('passed');
  });
});

describe('an override', () => {
  const absent: Standing = {
    status: 'absent',
    reasons: ['no gate has judged it'],
    decision: null,
    folder: null,
    digests: null,
    override: null,
  };
  it('is read as it was signed, for its subject alone, and not with a byte changed', () => {
    const signer = makeKey(join(root, 'override.pem'));
    const time = '2026-11-29T05:00:00.000Z';
    const at = mkdtempSync(join(root, 'over-'));
    const file = join(at, OVERRIDE_FILE);
    const text = JSON.stringify(signOverride({ subject: SUBJECT, standing: absent, signer, reason: 'Demo', time }));
    writeFileSync(file, text);
    expect(readOverride(at, SUBJECT)).toMatchObject({ reason: 'Demo', time, against: 'absent' });
    expect(() => readOverride(at, { ...SUBJECT, base: hex('other') })).toThrow(IntegrityError);
    expect(readOverride(root, SUBJECT)).toBeNull();
    const keyid = /"keyid":"[0-9a-f]{64}"/.exec(text);
    for (let i = 0; i < text.length; i++) {
      // What a key is called by is a hint, which nothing goes by.
      if (keyid && i >= keyid.index && i < keyid.index + keyid[0].length) continue;
      const bytes = Buffer.from(text);
      bytes[i] = (bytes[i] as number) ^ 1;
      writeFileSync(file, bytes);
      expect(() => readOverride(at, SUBJECT), `byte ${i}`).toThrow(IntegrityError);
    }
  });
  it('is against the decision that it was signed for, and against no other', () => {
    const signer = makeKey(join(root, 'against.pem'));
    const [at, from] = [mkdtempSync(join(root, 'over-')), mkdtempSync(join(root, 'from-'))];
    const put = (standing: Standing): void =>
      writeFileSync(
        join(at, OVERRIDE_FILE),
        JSON.stringify(
          signOverride({ subject: SUBJECT, standing, signer, reason: 'Demo', time: '2026-11-29T05:00:00.000Z' }),
        ),
      );
    const failed: Standing = { ...absent, status: 'failed', decision: 'FAIL', folder: from };
    for (const folder of [at, from]) writeFileSync(join(folder, 'decision.json'), '{"decision":"FAIL"}');
    put(failed);
    expect(readOverride(at, SUBJECT)).toMatchObject({ against: 'failed' });
    writeFileSync(join(at, 'decision.json'), '{"decision":"FAIL" }');
    expect(() => readOverride(at, SUBJECT)).toThrow(/against another decision than the decision\.json beside it/);
    put(absent);
    expect(() => readOverride(at, SUBJECT)).toThrow(/signed when no gate had judged it/);
  });
});

describe('revocations', () => {
  const time = '2026-11-29T05:00:00.000Z';
  it('are a signed list that grows', () => {
    const list = join(root, 'revoked.json'),
      key = join(root, 'revoker.pem');
    const signer = makeKey(key),
      verifier = readVerifier(`${key}.pub`);
    revoke(list, signer, { digest: SUBJECT.adapter, reason: 'leaks', time });
    const second = revoke(list, signer, { digest: SUBJECT.base, reason: 'old', time });
    expect(second).toMatchObject({ sequence: 2, digest: readRevocations(list, verifier).digest });
    expect(revocationOf(second, ['sha256:x', SUBJECT.adapter])).toMatchObject({ reason: 'leaks' });
    expect(revocationOf(second, [hex('good')])).toBeNull();
    const again = revoke(list, signer, { digest: SUBJECT.base, reason: 'older', time });
    expect(again.revoked).toHaveLength(2);
    const long = { digest: SUBJECT.base, reason: 'x'.repeat(2001), time };
    expect(() => revoke(list, signer, long)).toThrow(/at most 2000/);
    // Two at once would sign the same number, each without the other's adapter.
    using _held = lockFolder(list, () => new Error('not held'));
    expect(() => revoke(list, signer, { digest: hex('late'), reason: 'x', time })).toThrow(/revokes on this list/);
  });

  it('damaged, of another key, unsigned, put back or signed twice are refused', () => {
    const list = join(root, 'l.json'),
      key = join(root, 'k.pem');
    const signer = makeKey(key),
      other = makeKey(join(root, 'other.pem'));
    revoke(list, signer, { digest: SUBJECT.adapter, reason: 'leaks', time });
    const first = readFileSync(list);
    const seen = seenLists(join(root, 'seen'));
    expect(takeRevocations(list, signer, seen).sequence).toBe(1);
    revoke(list, signer, { digest: SUBJECT.base, reason: 'old', time });
    const second = readFileSync(list);
    expect(takeRevocations(list, signer, seen).sequence).toBe(2);
    expect(takeRevocations(list, signer, seen).sequence).toBe(2);
    writeFileSync(list, first);
    expect(() => takeRevocations(list, signer, seen)).toThrow(/number 1, number 2 was taken before/);
    // Another process of the same user knows too.
    expect(() => takeRevocations(list, signer, seenLists(join(root, 'seen')))).toThrow(/was put back/);
    revoke(list, signer, { digest: hex('third'), reason: 'fork', time });
    expect(() => takeRevocations(list, signer, seen)).toThrow(/its key signed two/);
    writeFileSync(list, second);
    expect(() => takeRevocations(list, other, seen)).toThrow(/not signed by the key/);
    expect(() => revoke(list, other, { digest: hex('x'), reason: 'x', time })).toThrow(IntegrityError);
    writeFileSync(list, '{"revoked":[]}');
    expect(() => takeRevocations(list, signer, seen)).toThrow(/no signed list/);
    expect(() => takeRevocations(join(root, 'none.json'), signer, seen)).toThrow(IntegrityError);
    for (let i = 0; i < second.length; i++) {
      const bytes = Buffer.from(second);
      bytes[i] = (bytes[i] as number) ^ 1;
      writeFileSync(list, bytes);
      let taken: number | null = null;
      try {
        taken = takeRevocations(list, signer, seen).revoked.length;
      } catch (e) {
        expect(e).toBeInstanceOf(IntegrityError);
      }
      // White space and the key's hint are not signed, and change nothing.
      if (taken !== null) expect(taken).toBe(2);
    }
  });
});
