// Requests run to their end on the calling thread.
import type { Finish, SequenceOptions } from './sequence.js';
import type { Session } from './session.js';

export interface Completion {
  readonly tokens: Int32Array;
  readonly logprobs: Float32Array;
  readonly finish: Finish;
}
/** Runs sequences to their end on the calling thread. @returns completions in the order of `requests` */
export function generateAll(
  session: Session,
  requests: readonly SequenceOptions[],
  signal?: AbortSignal,
): readonly Completion[] {
  const running = new Map(
    requests.map((request) => [
      session.start(request),
      { tokens: [] as number[], logprobs: [] as number[], finish: 'length' as Finish },
    ]),
  );
  try {
    while (!session.idle) {
      signal?.throwIfAborted();
      for (const { sequence, token, logprob, finish } of session.step()) {
        const out = running.get(sequence);
        if (!out) continue;
        out.tokens.push(token);
        out.logprobs.push(logprob);
        if (finish) out.finish = finish;
      }
    }
  } finally {
    for (const sequence of running.keys()) session.cancel(sequence);
  }
  return [...running.values()].map((o) => ({
    tokens: Int32Array.from(o.tokens),
    logprobs: Float32Array.from(o.logprobs),
    finish: o.finish,
  }));
}
