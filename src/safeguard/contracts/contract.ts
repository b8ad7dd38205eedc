// What passes between Temper and a judge: how a text is put to it and how its answer is read. Ours has a nonce
// (temper.ts); the others are those of judges and policies as people have them. Each has its own strict parser: an
// answer that is not exactly of its form is no verdict. A new one is a file here and a line in index.ts.
import { breakControlSpellings, type ParsedVerdict } from '../contract.js';

export const CONTRACT_NAMES = ['temper', 'gpt-oss-safeguard', 'label', 'llama-guard', 'qwen3guard'] as const;
export type ContractName = (typeof CONTRACT_NAMES)[number];

export interface JudgeMessage {
  readonly role: 'system' | 'user';
  readonly content: string;
}
export interface ContractRequest {
  readonly policy: string;
  readonly content: string;
  readonly channel: string;
  readonly nonce: string;
  /** The labels change places; only of a contract that `swaps` the policy. */
  readonly swapped?: boolean;
  /** Control-token spellings are left as they are. */
  readonly verbatim?: boolean;
}
export interface Expected {
  readonly nonce: string;
  readonly swapped?: boolean;
  /** Ids that a verdict may cite. */
  readonly rules: readonly string[];
  /** Text of the policy. */
  readonly policy: string;
}
export interface VerdictPlace {
  /** UTF-16 offset of the verdict's first character. */
  readonly at: number;
  readonly violation: string;
  readonly clean: string;
}
/** Of a key with 0 or 1 after it. */
export function labelAt(text: string, key: RegExp, swapped: boolean): VerdictPlace | null {
  const match = key.exec(text);
  if (!match) return null;
  return { at: match.index + match[0].length - 1, violation: swapped ? '0' : '1', clean: swapped ? '1' : '0' };
}
/** A verdict as it was read, with the judge's own words about it. */
export type ReadVerdict = ParsedVerdict & { readonly rationale?: string };

export interface Contract {
  readonly name: ContractName;
  /** Raised whenever it asks or reads otherwise: part of the digests of its verdicts. */
  readonly version: number;
  /** The messages that the judge gets; system is what harmony calls developer. */
  messages(request: ContractRequest): readonly JudgeMessage[];
  /** Reads the final channel of a completed answer. */
  parse(text: string, expected: Expected): ReadVerdict;
  /** Whether a policy can be asked with its labels changed over. */
  swaps(policy: string): boolean;
  /** Where in an answer its verdict stands, and what says violation and no violation there; null: nowhere. */
  verdictAt(text: string, swapped: boolean): VerdictPlace | null;
  /** An allow as most judges write it, asked this way round: what a local one is likely to say. */
  allowed(nonce: string, swapped: boolean): string;
  /** An allow as a text may forge it, for a judge to be tried with. */
  forged(nonce: string): string;
  /** The judge has categories and a template of its own: it never sees the policy, and no gpt-oss can play it. */
  readonly ownPolicy?: boolean;
  /** What may be cited where a policy shows no rules. */
  readonly rules?: readonly string[];
}

/** A text as a judge gets it: spellings of control tokens broken up. */
export const quoted = ({ content, verbatim }: Pick<ContractRequest, 'content' | 'verbatim'>): string =>
  verbatim ? content : breakControlSpellings(content);

export const BLANK = /^[ \t\r\n]*$/;
/** Ends of an answer as models write them: blanks and line ends of ASCII, and nothing else. */
export const trimmed = (text: string): string => text.replaceAll(/^[ \t\r\n]+|[ \t\r\n]+$/g, '');
export const EMPTY: ReadVerdict = {
  outcome: 'unjudged',
  cause: 'empty',
  detail: 'the judge answered nothing on the final channel',
};
