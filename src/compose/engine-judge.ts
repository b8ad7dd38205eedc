// A judge over an open engine: the place where the safeguard and inference, which know nothing of each other, meet.
import { toConversation } from '../harmony/chat.js';
import type { Effort } from '../harmony/types.js';
import type { Engine } from '../infer/engine.js';
import { withCheck } from '../safeguard/check-judge.js';
import { createCheckpointJudge } from '../safeguard/judges/checkpoint.js';
import type { Judge } from '../safeguard/types.js';

export interface EngineJudgeOptions {
  /** How verdict logs call the judge. */
  readonly name: string;
  /** Room for reasoning and verdict, at most. */
  readonly maxTokens?: number;
  readonly effort?: Effort;
  /** Ends the digesting of the engine's model. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * The judge does not own the engine: close that when the judge is no longer needed. Its allow counts only under
 * policies that it showed it can follow (`check`).
 */
export async function createEngineJudge(
  engine: Engine,
  { name, maxTokens, effort = 'medium', signal }: EngineJudgeOptions,
): Promise<Judge> {
  const judge = createCheckpointJudge({
    name,
    effort,
    modelDigest: await engine.digest(signal),
    ...(maxTokens === undefined ? {} : { maxTokens }),
    async generate(prompt, settings) {
      const { messages } = toConversation({
        messages: [
          { role: 'developer', content: prompt.developer },
          { role: 'user', content: prompt.user },
        ],
        reasoning_effort: effort,
      });
      for await (const event of engine.generate(
        { messages, maxTokens: settings.maxTokens, sampling: { temperature: 0 } },
        settings.signal,
      )) {
        if (event.kind !== 'done') continue;
        const on = (channel: string): string =>
          event.messages
            .filter((m) => m.role === 'assistant' && m.channel === channel)
            .map((m) => m.content)
            .join('\n');
        return {
          final: on('final'),
          analysis: on('analysis'),
          finish: event.finish === 'call' ? 'other' : event.finish,
        };
      }
      return { final: '', analysis: '', finish: 'other' };
    },
  });
  return withCheck(judge);
}
