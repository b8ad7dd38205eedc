// One case, all arms: the scorer is handed what it may use, and its values become rows of the outcomes.
import { sha256 } from '../../base/digest.js';
import { ConfigError } from '../../base/errors.js';
import type { Message } from '../../harmony/types.js';
import { ARMS, type Arm, type Outcome } from '../outcomes.js';
import type { Answer, Judged, Reference, Scored, Tools, Training } from '../scorers/scorer.js';
import type { BaseCache } from './base-cache.js';
import { type Case, countedFor } from './cases.js';

/** One of the models: the base, or what is to leave. */
export interface ArmTools {
  /** @param seed of the sampling, 32 bits */
  answer(messages: readonly Message[], seed: number, signal: AbortSignal): Promise<Answer>;
  loss(messages: readonly Message[], reference: Reference, signal: AbortSignal): Promise<number>;
}
/** The merged checkpoint answers where one is to leave. */
export type Arms = Readonly<Record<Exclude<Arm, 'merged'>, ArmTools> & Partial<Record<'merged', ArmTools>>>;
export interface PolicyJudge {
  /** Of the policy's file, as outcomes name it. */
  readonly digest: string;
  judge(channel: string, text: string, signal: AbortSignal): Promise<Judged>;
}
export interface ScoringOptions {
  readonly arms: Arms;
  /** By the path of a policy. */
  readonly policies: ReadonlyMap<string, PolicyJudge>;
  /** Of the judge that is asked, "sha256:…"; null: none is. */
  readonly judge: string | null;
  readonly training: Training | null;
  readonly seeds: readonly number[];
  /** Whether rows have what was asked and said. */
  readonly content: 'full' | 'none';
  readonly cache: BaseCache | null;
  /** What answers of the base depend on beside prompt and seed. */
  readonly baseKey: string;
  readonly onTokens?: (tokens: number) => void;
}

/** The seed of a sample: the same for all arms, another for each conversation. */
export function seedOf(seeds: readonly number[], sample: number, messages: readonly Message[]): number {
  const round = Math.floor(sample / seeds.length);
  const text = JSON.stringify([
    seeds[sample % seeds.length],
    round,
    messages.map((m) => [m.role, m.channel, m.content]),
  ]);
  return Number.parseInt(sha256(text).slice(0, 8), 16);
}

export class Scoring {
  /** The same conversation is had once for all tests that ask it; the same text is judged once. */
  readonly #answers = new Map<string, Promise<Answer>>();
  readonly #verdicts = new Map<string, Promise<Judged>>();

  constructor(
    readonly options: ScoringOptions,
    readonly signal: AbortSignal,
  ) {}
  /** Those that answer, in their order. */
  get arms(): readonly Arm[] {
    return ARMS.filter((arm) => this.options.arms[arm] !== undefined);
  }

  #once<T>(known: Map<string, Promise<T>>, key: unknown, work: () => Promise<T>): Promise<T> {
    const digest = sha256(JSON.stringify(key));
    const before = known.get(digest);
    if (before) return before;
    const made = work();
    known.set(digest, made);
    return made;
  }
  #tools(of: Case, arm: Arm): Tools {
    const { arms, policies, training, seeds, onTokens } = this.options;
    const { policy } = of.of;
    const tools = arms[arm];
    if (!tools) throw new Error(`no model answers as ${arm}`);
    return {
      training,
      wanted: new Set(of.of.counted.map((c) => c.value)),
      answer: (messages) => {
        const seed = seedOf(seeds, of.sample, messages);
        return this.#once(this.#answers, [arm, seed, messages], async () => {
          const answer = await tools.answer(messages, seed, this.signal);
          onTokens?.(answer.tokens);
          return answer;
        });
      },
      judge: (channel, text) =>
        this.#once(this.#verdicts, [policy, channel, text], () => {
          const judge = policies.get(policy ?? '');
          if (!judge) throw new Error(`test ${of.of.test.name}: no judge for its policy`);
          return judge.judge(channel, text, this.signal);
        }),
      loss: (messages, reference) => tools.loss(messages, reference, this.signal),
    };
  }
  async #score(of: Case, arm: Arm): Promise<Scored> {
    try {
      return await of.of.scorer.score(of.prompt, this.#tools(of, arm));
    } catch (e) {
      // A prompt that cannot be asked has no value; a model or a machine that fails ends the run.
      if (!(e instanceof ConfigError) || this.signal.aborted) throw e;
      const values = Object.fromEntries(Object.keys(of.of.scorer.values).map((name) => [name, null]));
      return { values, notes: { ...of.of.scorer.known?.(of.prompt), cause: e.code }, answers: [] };
    }
  }
  /** Of the base it may be known from a run before. */
  async #scored(of: Case, arm: Arm): Promise<Scored> {
    const { cache, baseKey, judge, training, policies } = this.options;
    const { scorer, policy } = of.of;
    if (!cache || arm !== 'base' || scorer.armless) return this.#score(of, arm);
    const { opening, turns, text, expect } = of.prompt;
    const judging = policy === null ? null : [judge, policies.get(policy)?.digest];
    const reads = scorer.readsTraining ? (training?.digest ?? null) : null;
    const sampled = [this.options.seeds, of.sample, of.of.counted.map((c) => c.value)];
    const key = sha256(
      JSON.stringify([baseKey, scorer.name, judging, reads, opening, turns, text, expect ?? null, sampled]),
    );
    const known = cache.get(key);
    if (known) return known;
    const scored = await this.#score(of, arm);
    // What the judge could not say today it may say tomorrow.
    if (scored.notes?.cause === undefined) cache.put(key, slim(scored));
    return scored;
  }
  /** The rows of a case, arm after arm, each in the order of the metrics. */
  async rows(of: Case): Promise<readonly Outcome[]> {
    const { arms } = this;
    const scored = of.of.scorer.armless
      ? await this.#scored(of, 'adapter').then((one) => arms.map(() => one))
      : await Promise.all(arms.map((arm) => this.#scored(of, arm)));
    return arms.flatMap((arm, i) => rowsOf(of, arm, scored[i] as Scored, this.options));
  }
}

/** Without the messages, which no row has. */
const slim = ({ answers, ...rest }: Scored): Scored => ({
  ...rest,
  answers: answers.map((answer) => ({ ...answer, messages: [] })),
});

function rowsOf(of: Case, arm: Arm, scored: Scored, { judge, policies, content }: ScoringOptions): readonly Outcome[] {
  const { prompt, sample, index } = of;
  const { test, policy } = of.of;
  const { cause, ...notes } = scored.notes ?? {};
  const judging = policy === null || judge === null ? {} : { judge, policy: policies.get(policy)?.digest };
  return countedFor(of).map(({ metric, value: name }, i): Outcome => {
    const value = scored.values[name] ?? null;
    const slice = String((metric.sliceBy === undefined ? undefined : prompt.fields[metric.sliceBy]) ?? '');
    return {
      metric: metric.name,
      ...(slice === '' ? {} : { slice }),
      prompt: prompt.id,
      sample,
      arm,
      value,
      ...(prompt.family === null ? {} : { cluster: prompt.family }),
      ...judging,
      case: index,
      test: test.name,
      ...notes,
      ...(value === null ? { cause: cause ?? 'unknown' } : {}),
      // Once for all metrics of a case and an arm.
      ...(i === 0 ? { tokens: scored.answers.reduce((sum, a) => sum + a.tokens, 0) } : {}),
      ...(i === 0 && content === 'full' ? { asked: askedOf(of), said: scored.answers.map((a) => a.channels) } : {}),
    };
  });
}
/** What a reader is shown of a prompt: all but the harmony system message. */
const askedOf = ({ prompt }: Case): string =>
  [...prompt.opening.filter((m) => m.role !== 'system').map((m) => `${m.role}: ${m.content}`), ...prompt.turns]
    .concat(prompt.text ?? [])
    .join('\n');
