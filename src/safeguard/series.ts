// Beginnings of an answer that are judged one after the other while it is written. A text that goes on from one that
// was judged is quoted with the same nonce, so that a judge that keeps what it has read reads only what is new. Whoever
// writes the answer never sees a nonce; one that stands in the text all the same is drawn anew, as for every text.
import { makeNonce } from './contract.js';

interface Quoted {
  readonly policy: string;
  readonly content: string;
  readonly nonce: string;
}

/** Of one answer, all its channels. */
export class Series {
  #quoted: Quoted[] = [];

  /** @param anew the judge strayed with the one before */
  nonceFor(policy: string, content: string, anew: boolean): string {
    const before = this.#quoted
      .filter((q) => q.policy === policy && content.startsWith(q.content))
      .reduce<Quoted | undefined>((best, q) => (best && best.content.length > q.content.length ? best : q), undefined);
    const goesOn = before !== undefined && !anew && !content.includes(before.nonce);
    const nonce = goesOn ? before.nonce : nonceOf(policy, content);
    this.#quoted = [...this.#quoted.filter((q) => q !== before), { policy, content, nonce }];
    return nonce;
  }
}

/** One that stands neither in the text nor in the policy. */
export function nonceOf(policy: string, content: string): string {
  let nonce = makeNonce(content);
  while (policy.includes(nonce)) nonce = makeNonce(content);
  return nonce;
}
