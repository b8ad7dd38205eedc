// How fast a gate's models and judge are, measured on a little of what it will ask: a second or two on a small model.
import type { Speed } from '../gate/run/cost.js';
import type { PolicyJudge } from '../gate/run/score.js';
import type { Message } from '../harmony/types.js';
import type { Engine } from '../infer/engine.js';

export interface MeasureOptions {
  readonly engine: Pick<Engine, 'generate'>;
  /** Name of the adapter in the engine; null: the model as it is. */
  readonly adapter: string | null;
  /** Conversations of the suite, spread over it. */
  readonly conversations: readonly (readonly Message[])[];
  /** Answers at once. */
  readonly slots: number;
  readonly sampling: { readonly temperature: number; readonly maxTokens: number };
  /** null: it is not asked. */
  readonly judge: PolicyJudge | null;
  /** Seconds. */
  readonly clock: () => number;
  readonly signal: AbortSignal;
}
/** After so many seconds no more tokens are waited for. */
const BUDGET = 1;
/** A model that has not read its prompts by then is not measured. */
const HARD_STOP_MS = 30_000;
/** Verdicts, and how long they are waited for. */
const TEXTS = 8;
const TEXTS_MS = 5_000;

interface Batch {
  readonly seconds: number;
  readonly prompts: number;
  readonly tokens: number;
  readonly answers: readonly { readonly tokens: number; readonly whole: boolean }[];
}
/** Asks some at once until all are told or the budget is spent and each has a token. */
async function batch(
  { engine, adapter, sampling, clock, signal }: MeasureOptions,
  conversations: MeasureOptions['conversations'],
  maxTokens: number,
): Promise<Batch> {
  const began = clock();
  const stop = new AbortController();
  const counts = conversations.map(() => ({ tokens: 0, whole: false, prompt: 0 }));
  const spent = (): boolean => clock() - began > BUDGET && counts.every((c) => c.tokens > 0);
  await Promise.all(
    conversations.map(async (messages, i) => {
      const count = counts[i] as (typeof counts)[number];
      const request = {
        messages,
        maxTokens,
        sampling: { temperature: sampling.temperature, seed: i },
        ...(adapter === null ? {} : { adapter }),
      };
      try {
        for await (const event of engine.generate(request, AbortSignal.any([signal, stop.signal]))) {
          if (event.kind === 'done') {
            count.tokens = event.usage.completionTokens;
            count.prompt = event.usage.promptTokens - event.usage.cachedTokens;
            count.whole = event.finish !== 'length' || maxTokens === sampling.maxTokens;
          } else count.tokens += event.pieces ?? 1;
          if (spent()) stop.abort();
        }
      } catch (e) {
        if (!stop.signal.aborted) throw e;
      }
    }),
  );
  const sum = (of: (c: (typeof counts)[number]) => number): number => counts.reduce((n, c) => n + of(c), 0);
  return { seconds: clock() - began, prompts: sum((c) => c.prompt), tokens: sum((c) => c.tokens), answers: counts };
}

/** @returns null: not one batch was read in time · @throws what the engine throws · the signal's reason */
export async function measureSpeed(options: MeasureOptions): Promise<Speed | null> {
  const { conversations, slots, sampling, signal } = options;
  const n = Math.min(slots, Math.floor(conversations.length / 2));
  if (n === 0) return null;
  const late = AbortSignal.timeout(HARD_STOP_MS);
  const timed = { ...options, signal: AbortSignal.any([signal, late]) };
  try {
    // Other prompts than the second time, so that none of them is known by then.
    const read = await batch(timed, conversations.slice(0, n), 1);
    const said = await batch(timed, conversations.slice(n, 2 * n), sampling.maxTokens);
    const secondsPerPromptToken = read.seconds / Math.max(1, read.prompts);
    const promptTokens = read.prompts / n;
    const decoding = said.seconds - n * promptTokens * secondsPerPromptToken;
    return {
      secondsPerPromptToken,
      // Where reading was noise, all of it counts as writing.
      secondsPerToken: Math.max(decoding, said.seconds / 10) / Math.max(1, said.tokens),
      promptTokens,
      tokens: lengths(said.answers, sampling.maxTokens),
      secondsPerText: await textSeconds(timed),
    };
  } catch (e) {
    signal.throwIfAborted();
    if (late.aborted) return null;
    throw e;
  }
}

/** Of answers that were cut nothing is known but that they are longer. */
function lengths(answers: Batch['answers'], maxTokens: number): Speed['tokens'] {
  const mean = answers.reduce((sum, a) => sum + a.tokens, 0) / answers.length;
  const cut = answers.filter((a) => !a.whole).length / answers.length;
  const most = mean + cut * (maxTokens - mean);
  return [mean, Math.sqrt(mean * most), most];
}

/** Verdicts on texts that no suite has. @returns null: not one came in time */
async function textSeconds({ judge, clock, signal }: MeasureOptions): Promise<number | null> {
  if (judge === null) return null;
  const began = clock();
  const late = AbortSignal.timeout(TEXTS_MS);
  const stop = AbortSignal.any([signal, late]);
  const asked = Array.from({ length: TEXTS }, (_, i) =>
    judge.judge('final', `How long a verdict takes, text ${i + 1}.`, stop),
  );
  const told = await Promise.allSettled(asked);
  signal.throwIfAborted();
  const fault = told.find((t) => t.status === 'rejected');
  if (fault && !late.aborted) throw fault.reason;
  const done = told.filter((t) => t.status === 'fulfilled').length;
  return done === 0 ? null : (clock() - began) / done;
}

/** So many of a list as lie evenly over it, in an order in which the first half does too. */
export function spread<T>(all: readonly T[], count: number): readonly T[] {
  const wanted = Math.min(count, all.length);
  const picked = Array.from({ length: wanted }, (_, i) => all[Math.floor((i * all.length) / wanted)] as T);
  return [...picked.filter((_, i) => i % 2 === 0), ...picked.filter((_, i) => i % 2 === 1)];
}
