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

/** Answers of one way that are remembered, and what is left of how often they came after each one more. */
const MOST_ANSWERS = 8;
const KEEPS = 0.95;

interface Answer {
  readonly turn: ExpectedTurn;
  /** In it, where it has one. */
  readonly nonce: string;
  /** The same for all nonces. */
  readonly form: string;
  /** How often it came of late. */
  often: number;
}

export class Expectation {
  /** By policy and way of asking, least recently used first. */
  readonly #known = new Map<string, Answer[]>();

  #of({ policy, contract, swapped }: JudgeRequest): Answer[] {
    const key = `${contract ?? ''} ${swapped === true} ${policy}`;
    const known = this.#known.get(key) ?? [];
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
    const known = this.#of(request);
    if (known.length === 0) return [[{ channel: 'final', content: contractOf(contract).allowed(nonce, swapped) }]];
    return known.toSorted((a, b) => a.often - b.often).map((answer) => renewed(answer, nonce));
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
    const known = this.#of(request),
      form = JSON.stringify(renewed({ turn, nonce }, ''));
    for (const answer of known) answer.often *= KEEPS;
    const same = known.find((answer) => answer.form === form);
    if (same) same.often++;
    else {
      if (known.length === MOST_ANSWERS) known.splice(rarest(known), 1);
      known.push({ turn, nonce, form, often: 1 });
    }
  }
}

const rarest = (answers: readonly Answer[]): number =>
  answers.reduce((least, { often }, i) => (often < (answers[least] as Answer).often ? i : least), 0);
const renewed = ({ turn, nonce }: Pick<Answer, 'turn' | 'nonce'>, next: string): ExpectedTurn =>
  turn.map(({ channel, content }) => ({ channel, content: content.replaceAll(nonce, next) }));
