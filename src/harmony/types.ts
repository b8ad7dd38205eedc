// Harmony's conversation as data: what render turns into tokens and parse turns back. How turns are fed and trained:
// docs/architecture.md, "Harmony".

export type Role = 'system' | 'developer' | 'user' | 'assistant' | 'tool';
export type Channel = 'analysis' | 'commentary' | 'final';
export type Effort = 'low' | 'medium' | 'high';

/**
 * One message. `name` is the tool's name for role tool (functions.get_weather); `contentType` e.g. `<|constrain|>json`.
 */
export interface Message {
  readonly role: Role;
  readonly content: string;
  readonly name?: string;
  /** Absent on system, developer and user messages; free text is kept as the model wrote it. */
  readonly channel?: string;
  readonly recipient?: string;
  readonly contentType?: string;
}

/** Reads and writes token ids. Text never becomes a control token: `encode` treats `<|end|>` as plain characters. */
export interface Tokenizer {
  /** Rows of the embedding that may be used as ids: [0, vocabSize). */
  readonly vocabSize: number;
  /** Control tokens by name: `special['<|start|>']`. All of the harmony set are present. */
  readonly special: Readonly<Record<string, number>>;
  encode(text: string): Int32Array;
  /**
   * Ordinary tokens to text (UTF-8, invalid bytes become U+FFFD); control tokens are written by name. Never throws on
   * any id.
   */
  decode(tokens: ArrayLike<number>): string;
  /** Bytes of the longest ordinary token: n bytes of text are at least n / longestToken tokens. Absent: not known. */
  readonly longestToken?: number;
  /** Bytes of one ordinary token; empty for control and unknown ids. */
  bytes(token: number): Uint8Array;
  isSpecial(token: number): boolean;
  /** sha256 of the vocabulary, hex. */
  readonly digest: string;
  close(): void;
}
