// A judge that is a local checkpoint. How text is generated is passed in: the safeguard knows nothing of models.

import { sha256 } from '../../base/digest.js';
import type { JudgePrompt } from '../contract.js';
import { judgeMessages } from '../contracts/index.js';
import type { Judge, JudgeAnswer } from '../types.js';

/** One completed turn by channel. `finish` is `stop` only when the model ended its turn itself. */
export interface CheckpointReply {
  readonly final: string;
  readonly analysis: string;
  readonly finish: 'stop' | 'length' | 'other';
}
export type CheckpointGenerate = (
  prompt: JudgePrompt,
  settings: { readonly temperature: 0; readonly maxTokens: number; readonly signal: AbortSignal },
) => Promise<CheckpointReply>;

export interface CheckpointJudgeOptions {
  readonly name: string;
  /** sha256 over the checkpoint's weights, config and tokenizer, hex. */
  readonly modelDigest: string;
  /** Part of the judge's identity; `generate` is what obeys it. */
  readonly effort?: string;
  readonly generate: CheckpointGenerate;
  /** Room for reasoning and verdict. */
  readonly maxTokens?: number;
}

export function createCheckpointJudge({
  name,
  modelDigest,
  effort = 'medium',
  generate,
  maxTokens = 1024,
}: CheckpointJudgeOptions): Judge {
  return {
    name,
    digest: sha256(JSON.stringify({ kind: 'checkpoint', modelDigest, effort, maxTokens, temperature: 0 })),
    async judge(request): Promise<JudgeAnswer> {
      const messages = judgeMessages(request);
      const said = (role: string): string => messages.find((m) => m.role === role)?.content ?? '';
      const prompt = { developer: said('system'), user: said('user') };
      const reply = await generate(prompt, { temperature: 0, maxTokens, signal: request.signal });
      return { text: reply.final, finish: reply.finish, rationale: reply.analysis };
    },
  };
}
