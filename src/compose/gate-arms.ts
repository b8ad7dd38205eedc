// The two models and the judge of a gate, as its runs ask them: inference, the safeguard and the gate, which know
// nothing of each other, meet here.
import { sha256, sha256File } from '../base/digest.js';
import type { ArmTools, PolicyJudge } from '../gate/run/score.js';
import { renderTraining } from '../harmony/render.js';
import { loadTokenizer } from '../harmony/tokenizer.js';
import type { Message, Tokenizer } from '../harmony/types.js';
import type { Engine } from '../infer/engine.js';
import { makeNonce } from '../safeguard/contract.js';
import type { ContractName } from '../safeguard/contracts/contract.js';
import type { DetectorSet } from '../safeguard/detectors/index.js';
import type { JudgingOptions } from '../safeguard/judging.js';
import { loadPolicy } from '../safeguard/policy.js';
import { createScreen } from '../safeguard/screen.js';
import { transcript } from '../safeguard/transcript.js';
import type { Judge, Policy } from '../safeguard/types.js';

export interface ArmOptions {
  readonly engine: Engine;
  /** Name of the adapter in the engine; null: the model as it is. */
  readonly adapter: string | null;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly tokenizer: () => Tokenizer;
}
export function createArm({ engine, adapter, maxTokens, temperature, tokenizer }: ArmOptions): ArmTools {
  const named = adapter === null ? {} : { adapter };
  return {
    async answer(messages, seed, signal) {
      const request = { messages, maxTokens, sampling: { temperature, seed }, ...named };
      for await (const event of engine.generate(request, signal)) {
        if (event.kind !== 'done') continue;
        const { finish, cut } = event;
        return {
          channels: transcript(event.messages),
          finish,
          cut,
          tokens: event.usage.completionTokens,
          messages: event.messages,
        };
      }
      throw new Error('the engine ended a turn without its last event');
    },
    async loss(messages, { analysis, final }, signal) {
      const said = (channel: string, content: string): Message => ({ role: 'assistant', channel, content });
      const answer = [...(analysis === undefined ? [] : [said('analysis', analysis)]), said('final', final)];
      const rendered = renderTraining({ messages: [...messages, ...answer] }, tokenizer()).at(-1);
      if (!rendered) return Number.NaN;
      const logprobs = await engine.score({ tokens: rendered.tokens, ...named }, signal);
      let [sum, n] = [0, 0];
      for (const [i, logprob] of logprobs.entries()) {
        if (rendered.trained[i + 1] !== 1) continue;
        sum -= logprob;
        n++;
      }
      return n === 0 ? Number.NaN : sum / n;
    },
  };
}

/** A tokenizer that is read when it is first asked for. */
export function lazily(folder: string): { readonly get: () => Tokenizer; close(): void } {
  let loaded: Tokenizer | undefined;
  return { get: () => (loaded ??= loadTokenizer(folder)), close: () => loaded?.close() };
}

/** Ids looked at for words: of a vocabulary of 200,000 every fiftieth. */
const LOOKED_AT = 4000;
/** Words of a vocabulary, for the search for triggers. */
export function wordsOf(tokenizer: Tokenizer): readonly string[] {
  const step = Math.max(1, Math.floor(tokenizer.vocabSize / LOOKED_AT));
  const words = new Set<string>();
  for (let id = 0; id < tokenizer.vocabSize; id += step) {
    if (tokenizer.isSpecial(id)) continue;
    const word = tokenizer.decode([id]).trim();
    if (/^[\p{L}\p{M}]{2,32}$/u.test(word)) words.add(word);
  }
  return [...words];
}

/**
 * The judge with nonces that follow from what is judged, so that a run that goes on asks what the run before it asked.
 * Whoever could foresee one would have to know the text that it is made of before writing it.
 */
function steady(judge: Judge, secret: string): Judge {
  const asked = new Map<string, number>();
  return {
    ...judge,
    async judge(request) {
      const key = sha256(JSON.stringify([secret, request.policy, request.channel, request.content, request.swapped]));
      const times = (asked.get(key) ?? 0) + 1;
      asked.set(key, times);
      let [digest, at] = ['', 0];
      const random = (n: number): number => {
        digest = sha256(`${key} ${times} ${at++}`);
        return Number.parseInt(digest.slice(0, 8), 16) % n;
      };
      const nonce = makeNonce(request.content + request.policy, random);
      const answer = await judge.judge({
        ...request,
        nonce,
        get signal() {
          return request.signal;
        },
      });
      // Who asked knows its own nonce; one that stood in the answer already is as wrong as it was.
      const text = answer.text.replaceAll(request.nonce, '').replaceAll(nonce, request.nonce);
      return { ...answer, text };
    },
  };
}

export interface PolicyJudgeOptions {
  readonly judge: Judge;
  readonly detectors: DetectorSet;
  readonly judging: JudgingOptions;
  readonly timeoutMs: number;
  readonly concurrency: number;
  /** Whether forged verdicts are tried first: a judge behind a URL. */
  readonly probe: boolean;
  /** Its allow counts although nobody checked the judge: the suite has texts of its own whose verdict is known. */
  readonly unchecked: boolean;
  /** Absent: the one of the policy's front matter. */
  readonly contract?: ContractName | undefined;
}
/** @throws {ConfigError} as loadPolicy */
export async function createPolicyJudge(file: string, options: PolicyJudgeOptions): Promise<PolicyJudge> {
  const { judge, unchecked, contract, ...rest } = options;
  const load = (golden: boolean): Promise<Policy> => loadPolicy(file, { golden, ...(contract ? { contract } : {}) });
  const policy = await load(!unchecked).catch(() => load(false));
  const screen = createScreen({
    ...rest,
    policies: [policy],
    judge: steady(judge, policy.digest),
    unchecked,
    // They go by the order of verdicts; judge health is a test of the suite.
    canaries: 0,
  });
  return {
    digest: `sha256:${await sha256File(file)}`,
    async judge(channel, text, signal) {
      const { verdicts } = await screen.screen({ [channel]: text }, signal);
      signal.throwIfAborted();
      // The judge and the detectors are told apart: the errors of the one say nothing of the others.
      const said = verdicts.find((v) => v.findings === undefined);
      const found = verdicts.find((v) => v.findings !== undefined);
      return {
        outcome: said?.outcome ?? 'unjudged',
        rule: said?.rule ?? null,
        cause: said ? said.cause : 'judge_error',
        detected: found ? (found.rule ?? 'unknown') : null,
      };
    },
  };
}
