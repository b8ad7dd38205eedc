// What a local judge is likely to answer, for its engine to check several tokens at once instead of one after the
// other: most of an answer is the form that the contract asks for, and judges write much alike from one text to the
// next. Learnt from its own last answers. Nothing of a verdict depends on it: the judge's tokens are its own.
import { contractOf } from '../contracts/index.js';
import type { JudgeRequest } from '../types.js';
import type { CheckpointReply } from './checkpoint.js';

/** A turn by messages, as the judge would write it. */
export type ExpectedTurn = readonly { readonly channel: string; readonly content: string }[];

/** Policies and ways of asking that are remembered. */
const MOST_WAYS = 64;
/** Longer thoughts are no form. */
const MOST_CHARS = 2000;

interface Answer {
  readonly turn: ExpectedTurn;
  /** In it, where it has one. */
  readonly nonce: string;
}
interface Known {
  allow?: Answer;
  block?: Answer;
}

export class Expectation {
  /** By policy and way of asking, least recently used first. */
  readonly #known = new Map<string, Known>();

  #of({ policy, contract, swapped }: JudgeRequest): Known {
    const key = `${contract ?? ''} ${swapped === true} ${policy}`;
    const known = this.#known.get(key) ?? {};
    this.#known.delete(key);
    this.#known.set(key, known);
    for (const old of this.#known.keys()) {
      if (this.#known.size <= MOST_WAYS) break;
      this.#known.delete(old);
    }
    return known;
  }
  /** The likeliest last. */
  expect(request: JudgeRequest): readonly ExpectedTurn[] {
    const { nonce, contract, swapped = false } = request;
    const { allow, block } = this.#of(request);
    const usual = [{ channel: 'final', content: contractOf(contract).allowed(nonce, swapped) }];
    return [...(block ? [renewed(block, nonce)] : []), allow ? renewed(allow, nonce) : usual];
  }
  /** Told of each answer. */
  learn(request: JudgeRequest, { final, analysis, finish }: CheckpointReply): void {
    if (finish !== 'stop' || final.length + analysis.length > MOST_CHARS) return;
    const { nonce, swapped = false, policy } = request;
    const contract = contractOf(request.contract);
    const { outcome } = contract.parse(final, { nonce, swapped, policy, rules: contract.rules ?? [] });
    if (outcome === 'unjudged') return;
    const turn = [
      ...(analysis === '' ? [] : [{ channel: 'analysis', content: analysis }]),
      { channel: 'final', content: final },
    ];
    this.#of(request)[outcome] = { turn, nonce };
  }
}

const renewed = ({ turn, nonce }: Answer, next: string): ExpectedTurn =>
  turn.map(({ channel, content }) => ({ channel, content: content.replaceAll(nonce, next) }));
