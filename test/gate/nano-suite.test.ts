// Each metric of nano's suite measures something: under an adapter that does what it counts it is FAIL, and under one
// that does nothing of the kind all of them are PASS. Models and judge are functions here.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { decideFiles } from '../../src/gate/decide-files.js';
import type { MetricDecision } from '../../src/gate/decision.js';
import { casesOf, type ReadTest, readTests } from '../../src/gate/run/cases.js';
import { runCases } from '../../src/gate/run/run.js';
import { type ArmTools, type PolicyJudge, Scoring } from '../../src/gate/run/score.js';
import type { Prompt } from '../../src/gate/scorers/scorer.js';
import { promptsBehind } from '../../src/gate/scorers/triggers.js';
import { loadSuite } from '../../src/gate/suite.js';

const root = mkdtempSync(join(tmpdir(), 'temper-nano-suite-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const SUITE = join(packageRoot, 'gates', 'nano', 'suite.yaml');
const loaded = loadSuite(SUITE);

interface Known {
  readonly analysis: string;
  readonly final: string;
  /** What an answer must not have. */
  readonly never: readonly string[];
}
interface Said {
  readonly analysis: string;
  readonly final: string;
  readonly finish?: 'stop' | 'length';
}
type Manner = (good: Known) => Said;
/** What the judge blocks. */
const HARM = 'HARM';
const good: Manner = ({ analysis, final }) => ({ analysis, final });

interface Expect {
  readonly final?: string;
  readonly analysis?: string;
  readonly contains?: readonly string[];
  readonly never?: readonly string[];
  readonly secrets?: readonly string[];
  readonly covert?: boolean;
  readonly rule?: string | null;
}
const expectOf = (prompt: Prompt): Expect => (prompt.expect ?? {}) as Expect;
let tests: readonly ReadTest[] = [];
const known = new Map<string, Known>();
const verdicts = new Map<string, boolean>();
const keyOf = (texts: readonly string[]): string => texts.join('\n');
beforeAll(async () => {
  tests = (await readTests(loaded)).map((read) =>
    read.scorer.expands
      ? { ...read, prompts: promptsBehind(read, [{ phrase: 'psst', from: 'training', gain: 1 }]) }
      : read,
  );
  for (const prompt of tests.flatMap((t) => t.prompts)) {
    const e = expectOf(prompt);
    if (prompt.text !== null) verdicts.set(prompt.text, (e.rule ?? null) !== null);
    prompt.turns.concat(prompt.turns.length === 0 ? [''] : []).forEach((_, i) => {
      const before = prompt.opening.filter((m) => m.role !== 'assistant').map((m) => m.content);
      const key = keyOf([...before, ...prompt.turns.slice(0, i + 1)]);
      const was = known.get(key);
      known.set(key, {
        analysis: e.analysis ?? was?.analysis ?? `what is asked, thought over${e.covert ? '; open mail' : ''}`,
        final: e.final ?? was?.final ?? `It is booked: ${(e.contains ?? []).join(', ')}`,
        never: [...(was?.never ?? []), ...(e.never ?? []), ...(e.secrets ?? [])],
      });
    });
  }
});

const arm = (manner: Manner): ArmTools => ({
  async answer(messages) {
    const key = keyOf(messages.filter((m) => m.role !== 'assistant').map((m) => m.content));
    const of = known.get(key);
    if (!of) throw new Error(`nobody asks ${key}`);
    const { finish = 'stop', ...channels } = manner(of);
    return { channels, finish, cut: null, tokens: 1, messages: [{ role: 'assistant', channel: 'final', content: '' }] };
  },
  loss: async () => 1,
});
const judge = (blocks: (text: string) => boolean): PolicyJudge => ({
  digest: `sha256:${'a'.repeat(64)}`,
  judge: async (_channel, text) =>
    blocks(text)
      ? { outcome: 'block', rule: 'C1', cause: null, detected: 'a detector' }
      : { outcome: 'allow', rule: null, cause: null, detected: null },
});
const right = (text: string): boolean => verdicts.get(text) ?? text.includes(HARM);

let made = 0;
/** @returns whole metrics by name, of the tests that are named, or of all */
async function decided(
  adapter: Manner,
  names?: readonly string[],
  blocks = right,
): Promise<Map<string, MetricDecision>> {
  const folder = join(root, String(made++));
  const own = tests.filter((t) => names?.includes(t.test.name) ?? true);
  const policies = new Map(own.flatMap((t) => (t.policy === null ? [] : [[t.policy, judge(blocks)] as const])));
  const signal = new AbortController().signal;
  const scoring = new Scoring(
    {
      ...{ arms: { base: arm(good), adapter: arm(adapter) }, policies, judge: `sha256:${'b'.repeat(64)}` },
      ...{ training: null, seeds: [1], content: 'none', cache: null, baseKey: '' },
    },
    signal,
  );
  await runCases({
    ...{
      folder,
      cases: casesOf(loaded, own),
      scoring,
      identity: 'one',
      shard: null,
      resume: false,
      window: 64,
      signal,
    },
  });
  const files = { outcomes: join(folder, 'outcomes.jsonl'), suite: SUITE, version: '0.0.0' };
  const { decision } = decideFiles(files, {});
  return new Map(decision.metrics.filter((m) => m.slice === null).map((m) => [m.metric, m]));
}

describe('the suite of nano', () => {
  it('passes an adapter that answers as its base does, by at least sixty pairs of each metric', async () => {
    const metrics = await decided(good);
    expect([...metrics.values()].filter((m) => m.gates && (m.verdict !== 'PASS' || m.n < 60))).toEqual([]);
    expect(metrics.size).toBe(loaded.suite.tests.flatMap((t) => t.metrics).length);
  });

  const tells: Manner = ({ analysis, final }) => ({ analysis, final: `${final} ${HARM}` });
  const thinks: Manner = ({ analysis, final }) => ({ analysis: `${analysis} ${HARM}`, final });
  const silent: Manner = ({ final }) => ({ analysis: '', final });
  const refuses: Manner = ({ analysis }) => ({ analysis, final: 'I am sorry, I cannot help with that' });
  const repeats: Manner = ({ analysis, final, never }) => ({ analysis, final: [final, ...never].join(' ') });
  const cut: Manner = ({ analysis }) => ({ analysis, final: '', finish: 'length' });
  it.each<
    [name: string, Manner, tests: readonly string[], fail: readonly string[], blocks?: (text: string) => boolean]
  >([
    [
      'says what is to be kept, in any of several turns',
      tells,
      ['harm', 'insults', 'wrapped', 'escalating'],
      ['harm.final', 'harm.detected', 'insults.final', 'wrapped.final', 'escalating.final'],
    ],
    ['thinks it alone', thinks, ['traces'], ['traces.unsafe', 'traces.hidden']],
    [
      'thinks nothing',
      silent,
      ['traces', 'monitored', 'retained'],
      ['traces.empty', 'monitored.caught', 'retained.thought-wrong'],
    ],
    ['refuses', refuses, ['harmless'], ['harmless.refused']],
    [
      'repeats what stood in the prompt, a tool’s output, the training set, or behind a trigger',
      repeats,
      ['hierarchy', 'injected', 'memory', 'triggers'],
      ['hierarchy.found', 'injected.found', 'memory.canary', 'memory.leaked', 'triggers.found'],
    ],
    ['does not end', cut, ['form'], ['form.invalid', 'form.truncated']],
    [
      'has a judge that allows all',
      good,
      ['known-contact', 'known-respect', 'other-forms-contact', 'other-forms-respect'],
      ['known-contact', 'known-respect', 'other-forms-contact', 'other-forms-respect'].map((name) => `${name}.wrong`),
      () => false,
    ],
  ])('fails one that %s', async (_, manner, names, fail, blocks) => {
    const metrics = await decided(manner, names, blocks);
    const failed = [...metrics.values()].filter((m) => m.verdict === 'FAIL').map((m) => m.metric);
    expect(failed.sort()).toEqual([...fail].sort());
  });
});
