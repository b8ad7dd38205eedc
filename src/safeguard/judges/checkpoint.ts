// A judge that is a local checkpoint. How text is generated is passed in: the safeguard knows nothing of models.

import { sha256 } from '../../base/digest.js';
import type { JudgePrompt } from '../contract.js';
import { contractOf, judgeMessages } from '../contracts/index.js';
import type { Judge, JudgeAnswer, JudgeRequest } from '../types.js';
import { Expectation, type ExpectedTurn } from './expectation.js';
import { type ScoredToken, verdictScore } from './score.js';

/** One completed turn by channel. `finish` is `stop` only when the model ended its turn itself. */
export interface CheckpointReply {
  readonly final: string;
  readonly analysis: string;
  readonly finish: 'stop' | 'length' | 'other';
  /** Tokens of `final` with their log-probabilities, where they are known. */
  readonly tokens?: readonly ScoredToken[];
}
export type CheckpointGenerate = (
  prompt: JudgePrompt & {
    /** How `user` begins in all questions of this policy about this channel; empty: as the text does. */
    readonly head: string;
    /** Others are likely to go on from the text's end. */
    readonly growing: boolean;
  },
  settings: {
    readonly temperature: number;
    readonly seed?: number;
    readonly maxTokens: number;
    /** Turns that it is likely to answer with, for guesses alone. */
    readonly expected: readonly ExpectedTurn[];
    readonly signal: AbortSignal;
  },
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
  /** Most tokens of prompt and answer together, and how many a prompt has: long texts are cut into windows by it. */
  readonly contextTokens?: number;
  readonly count?: (prompt: JudgePrompt, signal: AbortSignal) => Promise<number>;
}

/** Half of a context is left for the answer at most: reasoning takes what it gets. */
const ANSWER_SHARE = 0.5;
/** Tokens that harmony itself takes of a prompt, and more. */
const HARMONY_TOKENS = 128;
/** Tokens that a text adds to its prompt beside one for each byte, as pieces join at its borders. */
const BORDER_TOKENS = 8;
/** Policies and channels whose prompts are counted without a text. */
const MOST_COUNTED = 64;
/** As long as any. */
const FIT_NONCE = '0a0a0a';
interface Size {
  readonly bytes: number;
  readonly tokens: number;
}
type Fitting = Omit<JudgeRequest, 'nonce' | 'signal'>;
const bytesOf = ({ developer, user }: JudgePrompt): number => Buffer.byteLength(developer) + Buffer.byteLength(user);

export function createCheckpointJudge({
  name,
  modelDigest,
  effort = 'medium',
  generate,
  maxTokens = 1024,
  contextTokens,
  count,
}: CheckpointJudgeOptions): Judge {
  const promptOf = (request: Omit<JudgeRequest, 'signal'>): Parameters<CheckpointGenerate>[0] => {
    const messages = judgeMessages(request);
    const said = (role: string): string => messages.find((m) => m.role === role)?.content ?? '';
    const user = said('user');
    // The nonce stands nowhere in the text.
    return {
      developer: said('system'),
      user,
      head: user.slice(0, Math.max(0, user.indexOf(request.nonce))),
      growing: request.growing === true,
    };
  };
  const room =
    contextTokens === undefined ? 0 : contextTokens - Math.min(maxTokens, Math.floor(contextTokens * ANSWER_SHARE));
  /** Of prompts without a text: bytes and tokens. */
  const bare = new Map<string, Size>();
  async function bareSize(
    request: Fitting,
    count: NonNullable<CheckpointJudgeOptions['count']>,
    signal: AbortSignal,
  ): Promise<Size> {
    const key = `${request.contract ?? ''} ${request.channel} ${request.policy}`;
    const known = bare.get(key);
    if (known) return known;
    const prompt = promptOf({ ...request, content: '', nonce: FIT_NONCE });
    const size = { bytes: bytesOf(prompt), tokens: await count(prompt, signal) };
    if (bare.size >= MOST_COUNTED) bare.clear();
    bare.set(key, size);
    return size;
  }
  const expectation = new Expectation();
  return {
    name,
    digest: sha256(JSON.stringify({ kind: 'checkpoint', modelDigest, effort, maxTokens, temperature: 0 })),
    ...(contextTokens === undefined || !count
      ? {}
      : {
          contextTokens,
          async fits(request: Fitting, signal: AbortSignal): Promise<boolean> {
            const prompt = promptOf({ ...request, nonce: FIT_NONCE });
            // No token has less than a byte.
            const bytes = bytesOf(prompt);
            if (bytes + HARMONY_TOKENS <= room) return true;
            const bare = await bareSize(request, count, signal);
            const most = bare.tokens + (bytes - bare.bytes) + BORDER_TOKENS;
            return most <= room || (await count(prompt, signal)) <= room;
          },
        }),
    async judge(request): Promise<JudgeAnswer> {
      const { temperature, ...seed } = request.sampling ?? { temperature: 0 };
      const { signal, swapped = false, contract } = request;
      const expected = expectation.expect(request);
      const reply = await generate(promptOf(request), { temperature, ...seed, maxTokens, expected, signal });
      expectation.learn(request, reply);
      const place = reply.tokens ? contractOf(contract).verdictAt(reply.final, swapped) : null;
      const score = place && reply.tokens ? verdictScore(reply.final, reply.tokens, place) : null;
      return {
        text: reply.final,
        finish: reply.finish,
        rationale: reply.analysis,
        ...(score === null ? {} : { score }),
      };
    },
  };
}
