// POST /v1/completions: goes on with texts, or with lists of tokens.
import type { DoneEvent, PromptInfo } from '../infer/protocol.js';
import type { Api, ApiService } from './api.js';
import { asApiError, errorBody } from './api-error.js';
import { merged, withSeed } from './choices.js';
import {
  CompletionBody,
  type CompletionRequest,
  generationOf,
  type Prompt,
  UNSUPPORTED,
} from './completions-request.js';
import { Choices, finishOf, likelihoodOf, newHead, screeningFields, textOf, usageOf } from './completions-response.js';
import { type Answer, generate, type Released, requireNoOthers } from './generation.js';
import { answerJson, LazyList } from './json-pieces.js';
import { eventStream, type ServerEvent, stopWith } from './sse.js';

const fields = { prompt: 'prompt', maxTokens: 'max_tokens', answer: 'prompt' };
/** Answers of one request that run at once; the others wait here, and take no room of anybody's in the queue. */
const atOnce = ({ admission }: ApiService): number => Math.min(8, admission.slots);

/** What a prompt says; its log-probabilities where they are asked for. */
async function echoed(
  service: ApiService,
  request: CompletionRequest,
  prompt: Prompt,
  signal: AbortSignal,
): Promise<PromptInfo> {
  // Where something is written, that counts its tokens.
  if (request.logprobs === null && typeof prompt === 'string' && request.maxTokens > 0)
    return { text: prompt, tokens: [], count: 0 };
  service.served.find(request.model);
  const leave = await service.admission.enter(signal);
  try {
    const { adapter } = service.served.find(request.model);
    const top = request.logprobs;
    return await service.served.engine.read({ prompt, top, ...(adapter === null ? {} : { adapter }) }, signal);
  } finally {
    leave();
  }
}

/** One answer, its prompt before it where that is asked for: once it is taken, so that a refusal has its own status. */
async function* one(
  service: ApiService,
  request: CompletionRequest,
  at: { readonly prompt: Prompt; readonly choice: number; readonly index: number },
  { id, whole }: { readonly id: string; readonly whole: boolean },
  signal: AbortSignal,
): AsyncGenerator<Released | { readonly kind: 'echo'; readonly echo: PromptInfo }, void, void> {
  requireNoOthers(service, request.logprobs, 'logprobs');
  let echo = request.echo ? await echoed(service, request, at.prompt, signal) : null;
  if (echo && request.maxTokens === 0) {
    yield { kind: 'echo', echo };
    return;
  }
  const generation = generationOf(request, at.prompt);
  const seeded = { ...generation, request: withSeed(generation.request, at.choice), id, choice: at.index };
  for await (const released of generate(service, seeded, signal, whole)) {
    if (echo) yield { kind: 'echo', echo };
    echo = null;
    yield released;
  }
}
const jobsOf = ({ prompts, bestOf }: CompletionRequest) =>
  prompts.flatMap((prompt, p) =>
    Array.from({ length: bestOf }, (_, choice) => ({ prompt, p, choice, index: p * bestOf + choice })),
  );

/** What one answer has come to. */
interface Made {
  echo: PromptInfo | null;
  answer: Answer | null;
}
/** Where nothing is written, the prompt alone is counted. */
const nothing = (promptTokens: number): DoneEvent['usage'] => ({
  promptTokens,
  cachedTokens: 0,
  completionTokens: 0,
  reasoningTokens: 0,
  prefillMs: 0,
  decodeMs: 0,
});
const usagesOf = (made: readonly Made[]): readonly DoneEvent['usage'][] =>
  made.map(({ answer, echo }) => answer?.usage ?? nothing(echo?.count ?? 0));
const usageBody = (request: CompletionRequest, made: readonly Made[]): Record<string, unknown> =>
  usageOf(usagesOf(made.filter((_, i) => i % request.bestOf === 0)), usagesOf(made));

async function whole(
  service: ApiService,
  request: CompletionRequest,
  stop: AbortController,
): Promise<Record<string, unknown>> {
  const head = newHead(request.model);
  const jobs = jobsOf(request);
  const made = jobs.map((): Made => ({ echo: null, answer: null }));
  try {
    const all = jobs.map((job) => one(service, request, job, { id: head.id, whole: true }, stop.signal));
    for await (const { from, value } of merged(all, atOnce(service))) {
      const own = made[from]!;
      if (value.kind === 'echo') own.echo = value.echo;
      else if (value.kind === 'end') own.answer = value.answer;
    }
  } catch (e) {
    // One that failed takes the others with it.
    stop.abort(e);
    throw e;
  }
  const { n, bestOf, prompts } = request;
  const best = prompts.flatMap((_, p) => {
    const own = made.slice(p * bestOf, (p + 1) * bestOf);
    const byRank = bestOf > n ? own.toSorted((a, b) => rank(b) - rank(a)) : own;
    return byRank.slice(0, n);
  });
  const choiceOf = ({ echo, answer }: Made, index: number): Record<string, unknown> =>
    new Choices(index, request.logprobs !== null).of(
      (echo?.text ?? '') + (answer ? textOf(answer) : ''),
      answer ? finishOf(answer) : 'length',
      [...(echo?.tokens ?? []), ...(answer?.tokens ?? [])],
    );
  // Many small ones are much, too.
  const choices = LazyList.of(best, choiceOf, false);
  const [only] = best;
  const screened = best.length === 1 && only?.answer ? screeningFields(only.answer) : {};
  const all = best.length > 1 && best.some((b) => b.answer?.screening);
  const more = all ? { temper: { choices: best.map((b) => b.answer?.screening ?? null) } } : screened;
  return { ...head, choices, usage: usageBody(request, made), ...more };
}
const rank = ({ answer }: Made): number => (answer ? likelihoodOf(answer) : -Infinity);

async function* stream(
  service: ApiService,
  request: CompletionRequest,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, void> {
  const head = newHead(request.model);
  const jobs = jobsOf(request);
  const choices = jobs.map((_, i) => new Choices(i, request.logprobs !== null));
  const made = jobs.map((): Made => ({ echo: null, answer: null }));
  const said = (from: number, ...of: Parameters<Choices['of']>): Record<string, unknown> => ({
    ...head,
    choices: [choices[from]!.of(...of)],
  });
  const all = jobs.map((job) => one(service, request, job, { id: head.id, whole: false }, signal));
  for await (const { from, value } of merged(all, atOnce(service))) {
    const own = made[from]!;
    if (value.kind === 'echo') {
      own.echo = value.echo;
      const { text, tokens } = value.echo;
      yield { data: said(from, text, request.maxTokens === 0 ? 'length' : null, tokens) };
    } // Nothing to say, but that it has begun: its status leaves with it.
    else if (value.kind === 'begin') yield { data: said(from, '', null) };
    else if (value.kind === 'piece' && value.part.kind === 'content')
      yield { data: said(from, value.text, null, value.tokens) };
    else if (value.kind === 'end') {
      own.answer = value.answer;
      yield { data: { ...said(from, '', finishOf(value.answer)), ...screeningFields(value.answer) } };
    }
  }
  if (request.streamUsage) yield { data: { ...head, choices: [], usage: usageBody(request, made) } };
  yield { data: '[DONE]' };
}

export const completions: Api = {
  shapes: () => import('./wire-completions.js'),
  operations: [
    {
      method: 'post',
      path: '/v1/completions',
      summary: 'Goes on with texts or with lists of tokens.',
      body: CompletionBody,
      beside: UNSUPPORTED,
      answer: 'CompletionShape',
      event: { data: 'CompletionShape', done: true },
    },
  ],
  fields,
  register(app, serviceOf) {
    app.post('/v1/completions', async (c) => {
      const service = serviceOf(c);
      const request = await service.read(c, 'completions');
      const stop = stopWith(c);
      if (!request.stream) return answerJson(c, await whole(service, request, stop));
      const failed = (e: unknown): ServerEvent => ({ data: errorBody(asApiError(e, service.log, fields)) });
      return eventStream(c, stream(service, request, stop.signal), stop, failed);
    });
  },
};
