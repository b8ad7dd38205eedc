// Runs of the gate over models and a judge that are functions: what is asked, in which rows it ends, and that a run
// which was stopped leaves the bytes of one that was not.
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/base/errors.js';
import { lockFolder } from '../../src/base/lock.js';
import { copySuite, LOCK_FILE, SUBJECT_FILE } from '../../src/compose/gate.js';
import { mergeGate } from '../../src/compose/gate-merge.js';
import { PROOF_FILE, PROOF_SCHEMA, proofText } from '../../src/compose/gate-proof.js';
import { lockDigest, lockText, makeLock } from '../../src/gate/lock.js';
import { parseOutcomes } from '../../src/gate/outcomes.js';
import { openBaseCache } from '../../src/gate/run/base-cache.js';
import { casesOf, readTests } from '../../src/gate/run/cases.js';
import { mergeShards } from '../../src/gate/run/merge.js';
import { runCases, type Shard } from '../../src/gate/run/run.js';
import { type ArmTools, Scoring, type ScoringOptions, seedOf } from '../../src/gate/run/score.js';
import { loadSuite } from '../../src/gate/suite.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gate-run-'));
let made = 0;
const folder = (): string => {
  const path = join(root, String(made++));
  mkdirSync(path);
  return path;
};

const SUITE = `
name: small
version: '1'
samples: 2
seeds: [5, 6]
sampling: { temperature: 1, maxTokens: 8 }
tests:
  - name: harm
    kind: harm
    prompts: harm.jsonl
    policy: policy.md
    scorer: policy
    metrics:
      - { name: harm.final, direction: lower, margin: 0.1, sliceBy: topic, judged: true }
      - { name: harm.any, direction: lower, only: { deep: true } }
  - name: form
    kind: format
    prompts: harm.jsonl
    scorer: format
    metrics:
      - { name: form.invalid, direction: lower, margin: 0.1 }
`;
function suite(): string {
  const at = folder();
  const rows = Array.from({ length: 6 }, (_, i) => ({
    id: `p${i}`,
    topic: i % 2 === 0 ? 'even' : 'odd',
    deep: i < 2,
    ...(i === 3 ? { family: 'f' } : {}),
    prompt: `question ${i}`,
  }));
  writeFileSync(join(at, 'harm.jsonl'), rows.map((r) => `${JSON.stringify(r)}\n`).join(''));
  writeFileSync(join(at, 'policy.md'), '# P\n\nR1: numbers\n');
  writeFileSync(join(at, 'suite.yaml'), SUITE);
  return join(at, 'suite.yaml');
}

/** Says its own name, what it was asked and the seed. */
const arm = (name: string, calls: string[]): ArmTools => ({
  async answer(messages, seed) {
    const asked = messages.at(-1)?.content ?? '';
    calls.push(`${name} ${asked}`);
    return {
      channels: { analysis: `thinking of ${asked}`, final: `${name} says ${seed % 10} to ${asked}` },
      finish: 'stop',
      cut: null,
      tokens: 3,
      messages: [{ role: 'assistant', channel: 'final', content: 'x' }],
    };
  },
  loss: async () => 1,
});
interface Fake {
  readonly options: ScoringOptions;
  readonly calls: string[];
  readonly judged: string[];
}
function fake(
  file: string,
  more: Partial<ScoringOptions> = {},
  judge?: (text: string) => 'allow' | 'block' | 'unjudged',
): Fake {
  const calls: string[] = [],
    judged: string[] = [];
  const policy = {
    digest: `sha256:${'a'.repeat(64)}`,
    async judge(channel: string, text: string) {
      judged.push(`${channel} ${text}`);
      const outcome = judge?.(text) ?? (/says [0-4]/.test(text) ? ('block' as const) : ('allow' as const));
      return {
        outcome,
        rule: outcome === 'block' ? 'R1' : null,
        cause: outcome === 'unjudged' ? 'judge_error' : null,
        detected: null,
      };
    },
  };
  const options = {
    arms: { base: arm('base', calls), adapter: arm('adapter', calls) },
    policies: new Map([[join(file, '..', 'policy.md'), policy]]),
    judge: `sha256:${'b'.repeat(64)}`,
    training: null,
    seeds: [5, 6],
    content: 'full' as const,
    cache: null,
    baseKey: 'base',
    ...more,
  };
  return { options, calls, judged };
}
interface Asked {
  readonly resume?: boolean;
  readonly shard?: Shard;
  readonly identity?: string;
  readonly stopAfter?: number;
}
async function run(file: string, to: string, { options }: Fake, asked: Asked = {}): Promise<string> {
  const loaded = loadSuite(file);
  const cases = casesOf(loaded, await readTests(loaded));
  const stop = new AbortController();
  const { resume = false, shard = null, identity = 'one', stopAfter = Number.POSITIVE_INFINITY } = asked;
  await runCases({
    ...{ folder: to, cases, identity, shard, resume },
    scoring: new Scoring(options, stop.signal),
    window: 3,
    signal: stop.signal,
    onProgress: ({ done }) => {
      if (done >= stopAfter) stop.abort();
    },
  });
  return readFileSync(join(to, 'outcomes.jsonl'), 'utf8');
}
const rowsOf = (text: string): readonly Record<string, unknown>[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe('a run of the gate', () => {
  it('has a row for each metric, prompt, sample and arm that counts', async () => {
    const file = suite(),
      given = fake(file);
    const rows = rowsOf(await run(file, folder(), given));
    // 6 prompts, 2 samples, 2 arms of two metrics; harm.any of two prompts.
    expect(rows.filter((r) => r.metric === 'harm.final')).toHaveLength(24);
    expect(rows.filter((r) => r.metric === 'harm.any').map((r) => r.prompt)).toEqual(
      ['p0', 'p0', 'p0', 'p0', 'p1', 'p1', 'p1', 'p1'].sort(),
    );
    expect(rows.filter((r) => r.metric === 'form.invalid')).toHaveLength(24);
    expect(rows[0]).toMatchObject({
      metric: 'harm.final',
      slice: 'even',
      prompt: 'p0',
      sample: 0,
      arm: 'base',
      tokens: 3,
    });
    expect(rows.find((r) => r.prompt === 'p3')?.cluster).toBe('f');
    // What two tests ask alike is asked once, and both arms with the same seed.
    expect(given.calls).toHaveLength(24);
    const said = rows.filter((r) => r.metric === 'harm.final' && r.prompt === 'p0' && r.sample === 0);
    const digits = said.map((r) => /says (\d)/.exec(JSON.stringify(r.said))?.[1]);
    expect(digits[0]).toBe(digits[1]);
    expect(seedOf([5, 6], 0, [])).not.toBe(seedOf([5, 6], 1, []));
  });

  it('has rows that can be decided on where a prompt says nothing of its slice', async () => {
    const file = suite(),
      prompts = join(file, '..', 'harm.jsonl');
    writeFileSync(prompts, readFileSync(prompts, 'utf8').replaceAll('"topic":"odd"', '"topic":""'));
    const outcomes = parseOutcomes(Buffer.from(await run(file, folder(), fake(file))));
    expect(outcomes.slices).toEqual(['', 'even']);
  });

  it('leaves the same bytes when it is stopped and gone on with, wherever it stopped', async () => {
    const file = suite();
    const once = fake(file),
      whole = await run(file, folder(), once),
      judgements = once.judged.length;
    for (const stopAfter of [0, 1, 5, 11]) {
      const to = folder();
      await expect(run(file, to, fake(file), { stopAfter })).rejects.toThrow();
      // What was being written when it was killed.
      appendFileSync(join(to, 'outcomes.jsonl.part'), '{"metric":"harm.fi');
      await expect(run(file, to, fake(file)), 'without --resume').rejects.toMatchObject({ code: 'bad_run' });
      const again = fake(file);
      expect(await run(file, to, again, { resume: true })).toBe(whole);
      // What is there is not judged again.
      if (stopAfter >= 5) expect(again.judged.length).toBeLessThan(judgements);
      expect(existsSync(join(to, 'outcomes.jsonl.part'))).toBe(false);
    }
  });

  it('has a third arm where a merged checkpoint is judged, also when it is gone on with', async () => {
    const file = suite(),
      to = folder(),
      calls: string[] = [];
    const arms = { base: arm('base', calls), adapter: arm('adapter', calls), merged: arm('merged', calls) };
    const whole = await run(file, folder(), fake(file, { arms }));
    const rows = rowsOf(whole);
    expect(rows.filter((r) => r.metric === 'harm.final')).toHaveLength(36);
    expect(rows.filter((r) => r.case === 4).map((r) => r.arm)).toEqual(['base', 'adapter', 'merged']);
    expect(calls.filter((c) => c.startsWith('merged'))).toHaveLength(12);
    await expect(run(file, to, fake(file, { arms }), { stopAfter: 5 })).rejects.toThrow();
    expect(await run(file, to, fake(file, { arms }), { resume: true })).toBe(whole);
  });

  it('does not go on with a run of something else', async () => {
    const file = suite(),
      to = folder();
    await expect(run(file, to, fake(file), { stopAfter: 2 })).rejects.toThrow();
    await expect(run(file, to, fake(file), { resume: true, identity: 'two' })).rejects.toMatchObject({
      code: 'bad_run',
    });
  });

  it('goes on with what it left, and with nothing that was changed since', async () => {
    const file = suite(),
      to = folder(),
      outcomes = join(to, 'outcomes.jsonl');
    const whole = await run(file, to, fake(file));
    expect(await run(file, to, fake(file), { resume: true })).toBe(whole);
    writeFileSync(outcomes, whole.replace('"value":1', '"value":0'));
    await expect(run(file, to, fake(file), { resume: true })).rejects.toMatchObject({ code: 'bad_record' });
    writeFileSync(outcomes, whole);
    expect(await run(file, to, fake(file), { resume: true })).toBe(whole);
  });

  it('is alone in its folder', async () => {
    const file = suite(),
      to = folder();
    const held = lockFolder(to, () => new Error('held'));
    try {
      await expect(run(file, to, fake(file))).rejects.toMatchObject({ code: 'bad_run' });
    } finally {
      held[Symbol.dispose]();
    }
    expect(await run(file, to, fake(file))).toContain('harm.final');
  });

  it('is joined of shards to the bytes of one run; one that is missing or foreign is refused', async () => {
    const file = suite();
    const whole = await run(file, folder(), fake(file));
    const shards: string[] = [];
    for (const index of [1, 2, 3]) {
      const to = folder();
      await run(file, to, fake(file), { shard: { index, of: 3 } });
      shards.push(to);
    }
    const [a, b, c] = shards as [string, string, string];
    const out = folder();
    await mergeShards([c, a, b], out);
    expect(readFileSync(join(out, 'outcomes.jsonl'), 'utf8')).toBe(whole);
    await expect(mergeShards([a, b], folder())).rejects.toMatchObject({ code: 'bad_run' });
    await expect(mergeShards([a, b, b], folder())).rejects.toMatchObject({ code: 'bad_run' });
    const other = folder();
    await run(file, other, fake(file), { shard: { index: 3, of: 3 }, identity: 'two' });
    await expect(mergeShards([a, b, other], folder())).rejects.toMatchObject({ code: 'bad_record' });
    const left = readFileSync(join(c, 'outcomes.jsonl'), 'utf8');
    writeFileSync(join(c, 'outcomes.jsonl'), left.replace('"value":1', '"value":0'));
    await expect(mergeShards([a, b, c], folder())).rejects.toMatchObject({ code: 'bad_record' });
    writeFileSync(join(c, 'outcomes.jsonl'), readFileSync(join(a, 'outcomes.jsonl')));
    await expect(mergeShards([a, b, c], folder())).rejects.toMatchObject({ code: 'bad_record' });
    for (const line of ['null', '{"case":', '[]']) {
      writeFileSync(join(c, 'outcomes.jsonl'), `${line}\n`);
      await expect(mergeShards([a, b, c], folder())).rejects.toMatchObject({ code: 'bad_record' });
    }
  });

  it('asks nothing that no metric counts, and its shards are joined all the same', async () => {
    const file = suite();
    const only = SUITE.replace('sliceBy: topic', 'only: { deep: true }').replace(
      'margin: 0.1 }',
      'only: { topic: odd } }',
    );
    writeFileSync(file, only);
    const whole = fake(file),
      [a, b, out] = [folder(), folder(), folder()];
    const text = await run(file, folder(), whole);
    // p0 and p1 for the first test, p1, p3 and p5 for the second one.
    expect(new Set(whole.calls.map((c) => c.slice(-1)))).toEqual(new Set(['0', '1', '3', '5']));
    await run(file, a, fake(file), { shard: { index: 1, of: 2 } });
    await run(file, b, fake(file), { shard: { index: 2, of: 2 } });
    await mergeShards([a, b], out);
    expect(readFileSync(join(out, 'outcomes.jsonl'), 'utf8')).toBe(text);
  });

  it('is joined with what says when the gate was proven, and never over one of its shards', async () => {
    const file = suite(),
      out = folder();
    const form = SUITE.replace(/ {2}- name: harm\n[\s\S]*? {2}- name: form/, '  - name: form');
    writeFileSync(file, form);
    const loaded = loadSuite(file);
    const lock = makeLock(loaded, { judge: null, version: '0.0.0' });
    const digest = `sha256:${'c'.repeat(64)}`;
    const subject = { adapter: digest, base: digest, tokenizer: digest, chatFormat: digest, mergeRecipe: null };
    const proven = { adapter: digest, outcomes: digest, reasons: [] };
    const proof = {
      schema: PROOF_SCHEMA,
      ...{ at: '2026-01-02T03:04:05.000Z', ok: true, temper: '0.0.0', judge: null, base: digest },
      ...{ lock: lockDigest(lock), suite: loaded.digest },
      bad: { ...proven, wanted: 'FAIL', decision: 'FAIL' },
      harmless: { ...proven, wanted: 'PASS', decision: 'PASS' },
    } as const;
    const shards: string[] = [];
    for (const index of [1, 2]) {
      const to = folder();
      await run(file, to, fake(file), { shard: { index, of: 2 } });
      copySuite(loaded, to);
      writeFileSync(join(to, LOCK_FILE), lockText(lock));
      writeFileSync(join(to, SUBJECT_FILE), JSON.stringify(subject));
      if (index === 2) writeFileSync(join(to, PROOF_FILE), proofText(proof));
      shards.push(to);
    }
    const { signal } = new AbortController();
    const [first = ''] = shards;
    const before = readFileSync(join(first, 'outcomes.jsonl'), 'utf8');
    await expect(mergeGate(shards, first, signal)).rejects.toMatchObject({ code: 'bad_run' });
    expect(readFileSync(join(first, 'outcomes.jsonl'), 'utf8')).toBe(before);
    const { decision, rows } = await mergeGate(shards, out, signal);
    expect([decision.decision, rows]).toEqual(['INCONCLUSIVE', 24]);
    expect(readFileSync(join(out, 'report.md'), 'utf8')).toContain('2026-01-02');
  });

  it('knows what is true of a prompt that cannot be asked', async () => {
    const file = suite();
    writeFileSync(
      file,
      SUITE.replace(/ {2}- name: harm\n[\s\S]*/, '')
        .concat('  - { name: told, kind: monitorability, prompts: told.jsonl, scorer: monitor,\n')
        .concat('      metrics: [{ name: told.caught, direction: higher, statistic: gmean2, margin: 0.1 }] }\n'),
    );
    const prompts = [0, 1].map((i) => ({ id: `t${i}`, prompt: `q ${i}`, expect: { covert: i === 1, sign: 'q 1' } }));
    writeFileSync(join(file, '..', 'told.jsonl'), prompts.map((p) => `${JSON.stringify(p)}\n`).join(''));
    const long: ArmTools = {
      answer: () => Promise.reject(new ConfigError('prompt_too_long', 'too long')),
      loss: async () => 1,
    };
    const rows = rowsOf(await run(file, folder(), fake(file, { arms: { base: long, adapter: arm('adapter', []) } })));
    expect(rows.map((r) => [r.prompt, r.truth])).toEqual(
      ['t0', 't1'].flatMap((p, i) => Array.from({ length: 4 }, () => [p, i])),
    );
    expect(rows.filter((r) => r.arm === 'base').every((r) => r.value === null && r.cause === 'prompt_too_long')).toBe(
      true,
    );
  });

  it('does not ask the base what it answered before, and asks it when anything changed', async () => {
    const file = suite(),
      at = folder();
    const cached = async (more: Partial<ScoringOptions> = {}): Promise<Fake> =>
      fake(file, { cache: await openBaseCache(at, 'base'), ...more });
    const first = await cached();
    const whole = await run(file, folder(), first);
    const second = await cached();
    expect(await run(file, folder(), second)).toBe(whole);
    expect(second.calls.filter((c) => c.startsWith('base'))).toEqual([]);
    expect(second.calls).toHaveLength(12);
    const third = await cached({ baseKey: 'another' });
    await run(file, folder(), third);
    expect(third.calls.filter((c) => c.startsWith('base'))).toHaveLength(12);
    // A line that somebody changed counts for nothing.
    const kept = join(at, 'base.jsonl');
    writeFileSync(kept, readFileSync(kept, 'utf8').replaceAll('"final":0', '"final":1'));
    const fourth = await cached();
    expect(await run(file, folder(), fourth)).toBe(whole);
  });

  it('has no values where the judge says nothing, and asks it again when it is gone on with', async () => {
    const file = suite(),
      to = folder();
    const whole = await run(file, folder(), fake(file));
    let verdicts = 0;
    const dies = fake(file, {}, (text) => (++verdicts > 9 ? 'unjudged' : /says [0-4]/.test(text) ? 'block' : 'allow'));
    const rows = rowsOf(await run(file, to, dies));
    const missing = rows.filter((r) => r.value === null);
    expect(missing.length).toBeGreaterThan(4);
    expect(missing.every((r) => r.cause === 'judge_error' && r.metric !== 'form.invalid')).toBe(true);
    expect(await run(file, to, fake(file), { resume: true })).toBe(whole);
  });

  it('says nothing of what was asked and said, where that is not wanted', async () => {
    const file = suite();
    const text = await run(file, folder(), fake(file, { content: 'none' }));
    expect(text).not.toContain('question');
    expect(text).not.toContain('says');
  });
});

describe('tests of a suite', () => {
  const refused = async (change: (yaml: string) => string, rows?: string): Promise<string> => {
    const file = suite();
    writeFileSync(file, change(SUITE));
    if (rows !== undefined) writeFileSync(join(file, '..', 'harm.jsonl'), rows);
    return readTests(loadSuite(file)).then(
      () => 'read',
      (e: Error) => e.message,
    );
  };
  it('say what they have wrong before anything is asked', async () => {
    expect(await refused((y) => y)).toBe('read');
    expect(await refused((y) => y.replace('scorer: policy', 'scorer: magic'))).toContain('no scorer "magic"');
    expect(await refused((y) => y.replace('kind: harm', 'kind: odd'))).toContain('no kind "odd"');
    expect(await refused((y) => y.replace('kind: harm', 'kind: judge'))).toContain('goes with scorer judge');
    expect(await refused((y) => y.replace('    policy: policy.md\n', ''))).toContain('judges by a policy');
    for (const value of ['nothing', 'constructor'])
      expect(await refused((y) => y.replace('form.invalid', `form.${value}`))).toContain(`has no value "${value}"`);
    expect(await refused((y) => y.replace('sliceBy: topic', 'sliceBy: topik'))).toContain(
      'they have deep, family, topic',
    );
    expect(await refused((y) => y.replace('sliceBy: topic', 'sliceBy: family'))).toBe('read');
    expect(await refused((y) => y.replace('deep: true', 'deep: yes'))).toContain('is true of no prompt');
    const looks = (kind: string, scorer: string, value: string, expect_: string): Promise<string> =>
      refused(
        (y) =>
          y
            .replace('kind: format', `kind: ${kind}`)
            .replace('scorer: format', `scorer: ${scorer}`)
            .replace('form.invalid', `form.${value}`),
        `{"id":"a","topic":"t","deep":true,"prompt":"x"${expect_}}\n`,
      );
    expect(await looks('memory', 'memory', 'canary', '')).toContain('no prompt expects anything');
    expect(await looks('memory', 'memory', 'leaked', '')).toBe('read');
    const id = '{"id":"a","prompt":"x"}';
    expect(await refused((y) => y, `${id}\n${id}\n`)).toContain('is that of line 1');
    expect(await refused((y) => y, '{"id":"a","prompt":"x","turns":["y"]}')).toContain('prompt and turns');
    expect(await refused((y) => y, '{"id":"a"}')).toContain('none of them');
    expect(await refused((y) => y, '{"id":"a","prompt":"x","expect":{"no":1}}')).toContain('expect');
    expect(await refused((y) => y, 'not json')).toContain('not JSON');
    expect(await refused((y) => y, '\n')).toContain('no prompts');
  });
});
