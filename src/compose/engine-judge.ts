// A judge over an open engine: the place where the safeguard and inference, which know nothing of each other, meet.
import { toConversation } from '../harmony/chat.js';
import type { Effort, Message } from '../harmony/types.js';
import type { Answering } from '../infer/side-by-side.js';
import { withCheck } from '../safeguard/check-judge.js';
import type { JudgePrompt } from '../safeguard/contract.js';
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
  engine: Answering,
  { name, maxTokens, effort = 'medium', signal }: EngineJudgeOptions,
): Promise<Judge> {
  const messagesOf = (prompt: JudgePrompt): readonly Message[] =>
    toConversation({
      messages: [
        { role: 'developer', content: prompt.developer },
        { role: 'user', content: prompt.user },
      ],
      reasoning_effort: effort,
    }).messages;
  const judge = createCheckpointJudge({
    name,
    effort,
    modelDigest: await engine.digest(signal),
    ...(maxTokens === undefined ? {} : { maxTokens }),
    contextTokens: engine.info.contextTokens,
    count: (prompt, stop) => engine.count(messagesOf(prompt), stop),
    async generate(prompt, { temperature, seed, maxTokens: most, expected, signal: stop }) {
      // The probability of the verdict's own token says enough: others would be sorted out of all, for every token.
      const sampling = { temperature, ...(seed === undefined ? {} : { seed }) };
      for await (const event of engine.generate(
        {
          messages: messagesOf(prompt),
          shared: prompt.head,
          growing: prompt.growing,
          quiet: true,
          maxTokens: most,
          sampling,
          topLogprobs: 0,
          prediction: expected,
        },
        stop,
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
          tokens: event.answer ?? [],
        };
      }
      return { final: '', analysis: '', finish: 'other' };
    },
  });
  return withCheck(judge);
}
