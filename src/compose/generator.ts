// The trainer's evaluation needs answers; inference gives them. Here the two meet.
import { ConfigError } from '../base/errors.js';
import type { Message } from '../harmony/types.js';

export interface GeneratorOptions {
  readonly model: string;
  readonly adapter: string | null;
  readonly maxTokens: number;
  readonly threads?: number;
}
export interface Generator {
  /** Answers asked for at once. */
  readonly slots: number;
  /** The final text of the most probable answer; null when it has none, ran out of tokens, or cannot fit. */
  readonly final: (messages: readonly Message[], signal?: AbortSignal) => Promise<string | null>;
  close(): Promise<void>;
}
const SLOTS = 8;

export async function createGenerator(options: GeneratorOptions): Promise<Generator> {
  const { openEngine } = await import('../infer/engine.js');
  const engine = await openEngine({
    model: options.model,
    slots: SLOTS,
    ...(options.adapter === null ? {} : { adapters: { adapter: options.adapter } }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  return {
    slots: SLOTS,
    async final(messages, signal) {
      try {
        for await (const event of engine.generate(
          {
            messages,
            maxTokens: options.maxTokens,
            sampling: { temperature: 0 },
            ...(options.adapter === null ? {} : { adapter: 'adapter' }),
          },
          signal,
        )) {
          if (event.kind !== 'done') continue;
          return event.finish === 'length'
            ? null
            : (event.messages.findLast((m) => m.role === 'assistant' && m.channel === 'final')?.content ?? null);
        }
      } catch (e) {
        // A question longer than the context is one that is not answered: it does not end those of the others.
        if (!(e instanceof ConfigError && e.code === 'prompt_too_long')) throw e;
      }
      return null;
    },
    close: () => engine.close(),
  };
}
