// What leaves of a turn, part by part: thoughts are shown, sealed or kept here.
import type { DoneEvent, TokenInfo } from '../infer/protocol.js';
import type { Released } from './generation.js';
import { type PartHead, partsOf, type Sorter } from './parts.js';
import { seal } from './seal.js';

/** Channels of messages that a conversation keeps; the rest is no part of one. */
export const isKept = (part: PartHead): boolean => part.kind !== 'reasoning' || part.channel === 'analysis';

/** What leaves of each part, in order. */
export class Gate {
  /** A part that is being sealed: it leaves when it is whole. */
  #held: { readonly part: PartHead; text: string } | null = null;
  constructor(
    /** Thoughts may be shown. */
    readonly open: boolean,
    /** Thoughts that are not shown are given sealed. */
    readonly seals: boolean,
  ) {}
  shows = (part: PartHead): boolean => this.open || part.kind !== 'reasoning';

  *pass(part: PartHead, text: string, tokens?: readonly TokenInfo[]): Generator<Released, void, void> {
    if (this.#held && this.#held.part.index !== part.index) yield* this.rest();
    if (this.shows(part)) {
      if (text !== '' || part.kind === 'call' || tokens) yield { kind: 'piece', part, text, ...(tokens && { tokens }) };
    } else if (this.seals && isKept(part)) {
      this.#held ??= { part, text: '' };
      this.#held.text += text;
    }
  }
  *rest(): Generator<Released, void, void> {
    const held = this.#held;
    this.#held = null;
    if (held) yield { kind: 'sealed', part: held.part, text: seal(held.text) };
  }
}

/** A turn that is there, as pieces. */
export function* wholeOf(done: DoneEvent, sort: Sorter, gate: Gate): Generator<Released, void, void> {
  let told = false;
  for (const { text, ...part } of partsOf(done.messages, sort)) {
    const tokens = part.kind === 'content' && !told ? done.answer : undefined;
    told ||= part.kind === 'content';
    yield* gate.pass(part, text, tokens);
  }
}
