// What a policy holds for people to decide on: one item for each channel that did not pass.

import type { Message } from '../harmony/types.js';
import type { GenerateRequest } from '../infer/protocol.js';
import type { HeldItem, OnHeld } from '../safeguard/holdback/sink.js';
import type { ScreenResult } from '../safeguard/screen.js';
import { transcript } from '../safeguard/transcript.js';
import type { Verdict } from '../safeguard/types.js';
import type { AnswerName } from './held-turn.js';

export interface Held {
  readonly request: GenerateRequest;
  readonly messages: readonly Message[];
  readonly result: ScreenResult;
  readonly receipt: string | null;
  readonly name: AnswerName | undefined;
}
export interface Reviewed {
  /** Every one of its items was approved while the request waited. */
  readonly approved: boolean;
  /** Stands in the place of the answer where it was not. */
  readonly notice: string;
}
const NOBODY: AnswerName = { request: '', choice: 0, owner: null, model: '' };

function itemOf({ request, messages, result, receipt, name = NOBODY }: Held, channel: string): HeldItem {
  const own = result.verdicts.filter((v) => v.channel === channel);
  return {
    ...name,
    channel,
    content: transcript(messages)[channel] ?? '',
    context:
      request.prompt === undefined
        ? request.messages.map((m) => ({
            role: m.role,
            content: m.content,
            ...(m.channel === undefined ? {} : { channel: m.channel }),
          }))
        : [{ role: 'user', content: typeof request.prompt === 'string' ? request.prompt : '' }],
    verdicts: own.map(verdictOf),
    judge: own.find((v) => v.digests.judge !== '')?.digests.judge ?? '',
    receipt,
  };
}
const verdictOf = (v: Verdict): HeldItem['verdicts'][number] => ({
  policy: v.policy,
  digest: v.digests.policy,
  outcome: v.outcome,
  rule: v.rule,
  cause: v.cause,
  rationale: v.rationale,
});

/** Holds what did not pass, and waits where somebody may decide. @throws what holding throws: nothing is released */
export async function review(onHeld: OnHeld, held: Held, signal: AbortSignal): Promise<Reviewed> {
  const channels = Object.keys(held.result.channels).filter((c) => held.result.channels[c] !== 'allow');
  const tickets = await Promise.all(channels.map((channel) => onHeld(itemOf(held, channel))));
  const decisions = await Promise.all(tickets.map((t) => t.wait?.(signal) ?? Promise.resolve('expired' as const)));
  signal.throwIfAborted();
  const approved = decisions.length > 0 && decisions.every((d) => d === 'approved');
  // One of several is not released by itself.
  if (approved) await Promise.all(tickets.map((t) => t.released?.()));
  return {
    approved,
    notice: `[held for review: ${tickets.map((t) => t.id).join(', ')}]`,
  };
}
