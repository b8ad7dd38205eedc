// Kept prefixes outlive the engine, where a folder was given: the openings of conversations are written when they were
// computed, and read when a request begins that has one which is not kept.
import type { SlotRows } from '../model/kv-cache.js';
import type { ModelAdapter } from '../model/types.js';
import { Scope, type Tensor } from '../native/tensor.js';
import type { Adapters } from './adapters.js';
import { bindingFor } from './binding.js';
import type { OpenedModel } from './open-model.js';
import { type PrefixCounts, PrefixFiles, type PrefixKey } from './prefix-files.js';
import { type Cut, isOpening, MIN_PREFIX_TOKENS, type Prefix, type Prefixes } from './prefixes.js';
import type { EngineOptions } from './protocol.js';

/** Rows are copied out so many bytes at a time: streams go on in between. */
const PIECE_BYTES = 1 << 20;
/** Prefixes that wait to be written; later ones are left out. */
const MOST_WAITING = 16;

export class PrefixDisk {
  readonly #waiting: Prefix[] = [];
  #writing: Promise<void> | null = null;
  /** Being read, by what they are. */
  readonly #coming = new Map<string, Promise<void>>();
  #closed = false;

  /** @param bindingOf of what was computed with an adapter, or with none; null: it is not known here */
  constructor(
    readonly prefixes: Prefixes,
    readonly files: PrefixFiles,
    readonly bindingOf: (adapter: ModelAdapter | null) => string | null,
  ) {
    prefixes.onKept = (prefix) => this.#keep(prefix);
  }

  get counts(): PrefixCounts {
    return this.files.counts;
  }
  #keyOf({ tokens, cuts, adapter }: Cut): PrefixKey | null {
    const binding = this.bindingOf(adapter);
    return binding === null ? null : { binding, tokens, cuts, bytes: this.prefixes.cache.bytesFor(tokens.length) };
  }

  /** Openings alone: a conversation that went on is one user's, and there is one after each turn. */
  #keep(prefix: Prefix): void {
    if (this.#closed || !isOpening(prefix) || this.#waiting.length >= MOST_WAITING) return;
    this.#waiting.push(prefix);
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = null;
    });
  }
  async #writeAll(): Promise<void> {
    for (let prefix = this.#waiting.shift(); prefix; prefix = this.#waiting.shift()) {
      const key = this.#keyOf(prefix);
      if (key)
        await this.files.write(
          key,
          piecesOf(this.prefixes, prefix, () => this.#closed),
        );
    }
  }

  /**
   * Brings the opening of a prompt, its first `shared` tokens, if it is on disk and not kept.
   * @throws the signal's reason
   */
  async bring(tokens: Int32Array, shared: number, adapter: ModelAdapter | null, signal: AbortSignal): Promise<void> {
    const length = Math.min(shared, tokens.length - 1);
    if (length < MIN_PREFIX_TOKENS || this.prefixes.most === 0) return;
    const opening: Cut = { tokens: tokens.slice(0, length), cuts: [length], opening: length, adapter };
    if (this.prefixes.has(opening)) return;
    const key = this.#keyOf(opening);
    if (!key) return;
    const name = `${key.binding} ${opening.tokens.join()}`;
    let coming = this.#coming.get(name);
    if (!coming) {
      coming = this.#read(opening, key).finally(() => this.#coming.delete(name));
      this.#coming.set(name, coming);
    }
    await coming;
    signal.throwIfAborted();
  }
  async #read(opening: Cut, key: PrefixKey): Promise<void> {
    const bytes = await this.files.read(key);
    // The adapter may have gone meanwhile.
    if (!bytes || this.#closed || this.bindingOf(opening.adapter) !== key.binding) return;
    this.prefixes.put(opening, (rows) => fillRows(rows, bytes));
  }

  /** What waits is written. */
  async settle(): Promise<void> {
    await this.#writing;
  }
  /** Nothing is read or written any more. */
  close(): void {
    this.#closed = true;
    this.#waiting.length = 0;
  }
}

/** @param merged digest of the adapter in the weights · @throws {ConfigError} output_unwritable */
export async function openPrefixDisk(
  { folder, bytes }: NonNullable<EngineOptions['prefixCache']>,
  options: EngineOptions,
  { session, loaded, device }: OpenedModel,
  adapters: Adapters,
  merged: string | null,
): Promise<PrefixDisk> {
  const binding = await bindingFor(options, device, loaded.tokenizer.digest, merged);
  const files = new PrefixFiles(folder, bytes, (line) => process.emitWarning(line, 'TemperWarning'));
  return new PrefixDisk(session.prefixes, files, (adapter) => {
    if (adapter === null) return binding(null);
    const digest = adapters.digestOf(adapter);
    return digest === null ? null : binding(digest);
  });
}

/** The rows of a prefix as bytes; null when it is kept no more, as its rows are somebody else's then. */
function* piecesOf(prefixes: Prefixes, prefix: Prefix, closed: () => boolean): Generator<Uint8Array | null> {
  // It may have waited for others longer than it was kept.
  const all = prefixes.rowsOf(prefix);
  if (!all) return yield null;
  for (let i = 0; i < all.length; i++) {
    const { of, from, rows } = rowsAt(prefixes, prefix, i, closed) ?? {};
    if (!of || from === undefined || rows === undefined) return yield null;
    const bytesPerRow = of.bytes / of.rows,
      step = Math.max(1, Math.floor(PIECE_BYTES / bytesPerRow));
    for (let at = 0; at < rows; at += step) {
      // Asked again before each copy: others ran since the last.
      if (!rowsAt(prefixes, prefix, i, closed)) return yield null;
      yield copyOf(of, from + at, Math.min(step, rows - at));
    }
  }
}
function copyOf(of: Tensor, from: number, rows: number): Uint8Array {
  using s = new Scope('workspace', of.place);
  const part = of.slice(s, from, from + rows);
  return part.readInto(new Uint8Array(part.bytes));
}
const rowsAt = (prefixes: Prefixes, prefix: Prefix, i: number, closed: () => boolean): SlotRows | null =>
  closed() ? null : (prefixes.rowsOf(prefix)?.[i] ?? null);

function fillRows(all: readonly SlotRows[], bytes: Uint8Array): void {
  let at = 0;
  for (const { of, from, rows } of all) {
    using s = new Scope('workspace', of.place);
    const part = of.slice(s, from, from + rows);
    part.write(numbersOf(part, bytes, at));
    at += part.bytes;
  }
}
const numbersOf = (t: Tensor, { buffer, byteOffset }: Uint8Array, at: number): Float32Array | Uint16Array =>
  t.dtype === 'f32'
    ? new Float32Array(buffer, byteOffset + at, t.numel)
    : new Uint16Array(buffer, byteOffset + at, t.numel);
