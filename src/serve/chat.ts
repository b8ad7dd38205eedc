// One request of POST /v1/chat/completions: admitted, generated, judged, answered. Without policies text leaves as it
// is sampled; with them nothing leaves before its verdict.
import { randomInt, randomUUID } from 'node:crypto';
import { runTurn, type Turn, wasWithheld } from '../compose/turn.js';
import type { DoneEvent } from '../infer/protocol.js';
import type { Screen } from '../safeguard/screen.js';
import type { Admission } from './admission.js';
import type { ChatRequest } from './chat-request.js';
import {
  completionBody,
  Deltas,
  finishOf,
  firstChunk,
  type Head,
  lastChunk,
  partsOf,
  usageChunk,
  usageOf,
  type Whole,
  wholeChunks,
} from './chat-response.js';
import type { Meter } from './meter.js';
import type { Served } from './served.js';

export interface ChatService {
  readonly served: Served;
  /** null: no policy was given. */
  readonly screen: Screen | null;
  readonly admission: Admission;
  readonly meter: Meter;
}

/** A seed where the request says none. */
export const randomSeed = (): number => randomInt(2 ** 48 - 1);

const newHead = (model: string): Head => ({
  id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
  created: Math.floor(Date.now() / 1000),
  model,
});

/** A channel that is not allowed takes the whole answer with it: what is left would be half of it. */
function wholeOf(head: Head, turn: Turn): Whole {
  const { done, screened } = turn;
  if (!screened) return { parts: partsOf(head, done.messages), refusal: null, finish: finishOf(done) };
  const held = screened.channels.filter((c) => c.withheld);
  if (held.length === 0)
    // Allowed thoughts are judged and stay here: nobody but their reader would miss them, and he can be given the log.
    return { parts: { ...partsOf(head, done.messages), reasoning: '' }, refusal: null, finish: finishOf(done) };
  return {
    parts: { reasoning: '', content: '', calls: [] },
    refusal: held.map((c) => c.text).join(' '),
    finish: 'content_filter',
  };
}

/** Beside the API's own fields: what was decided, without a word of what is withheld. */
function screening({ screened }: Turn): Record<string, unknown> {
  if (!screened) return {};
  const verdicts = screened.result.verdicts.map((v) => ({
    policy: v.policy,
    channel: v.channel,
    outcome: v.outcome,
    rule: v.rule,
    cause: v.cause,
  }));
  return { temper: { outcome: screened.result.outcome, verdicts } };
}

/** The request as the engine takes it. */
function engineRequest({ served }: ChatService, request: ChatRequest): ChatRequest['generate'] {
  const { adapter } = served.find(request.model);
  return adapter === null ? request.generate : { ...request.generate, adapter };
}

/** @throws {ApiError} · what the engine refuses · the signal's reason */
export async function answer(
  service: ChatService,
  request: ChatRequest,
  signal: AbortSignal,
): Promise<Record<string, unknown>> {
  const generate = engineRequest(service, request);
  const leave = await service.admission.enter(signal);
  try {
    const head = newHead(request.model);
    const turn = await runTurn(service.served.engine, generate, service.screen, () => {}, signal);
    service.meter.turn(turn.done, wasWithheld(turn));
    return completionBody(head, wholeOf(head, turn), usageOf(turn.done), screening(turn));
  } finally {
    leave();
  }
}

/** Chunks of one answer. @throws as `answer` */
export async function* stream(
  service: ChatService,
  request: ChatRequest,
  signal: AbortSignal,
): AsyncGenerator<Record<string, unknown>, void, void> {
  const generate = engineRequest(service, request);
  const leave = await service.admission.enter(signal);
  try {
    const head = newHead(request.model);
    let done: DoneEvent | undefined;
    if (service.screen) {
      const turn = await runTurn(service.served.engine, generate, service.screen, () => {}, signal);
      done = turn.done;
      service.meter.turn(done, wasWithheld(turn));
      const whole = wholeOf(head, turn);
      yield firstChunk(head);
      yield* wholeChunks(head, whole);
      yield lastChunk(head, whole.finish, screening(turn));
    } else {
      const deltas = new Deltas(head);
      let begun = false;
      for await (const event of service.served.engine.generate(generate, signal)) {
        // Not before the engine has taken it: until then the answer may still be an error with a status of its own.
        if (!begun) yield firstChunk(head);
        begun = true;
        if (event.kind === 'text') yield deltas.chunk(event);
        else done = event;
      }
      if (!done) throw new Error('the engine ended a turn without its last event');
      service.meter.turn(done, false);
      yield* deltas.rest(partsOf(head, done.messages));
      yield lastChunk(head, finishOf(done), {});
    }
    if (request.streamUsage) yield usageChunk(head, usageOf(done));
  } finally {
    leave();
  }
}
