// All examples of a dataset in few large arrays: 5 bytes a token (its id, and a byte for weight and channel) and 24 an
// example, nothing of it on the JavaScript heap. An `Example` is made when it is asked for.
import { type Example, type Examples, inputLength } from './example.js';

/** Tokens of a slab; a longer example has a slab of its own. */
const SLAB_TOKENS = 1 << 20;
const KINDS = 256;

interface Slab {
  readonly tokens: Int32Array;
  readonly kinds: Uint8Array;
}

/** A column of u32 that grows. */
class Column {
  #values = new Uint32Array(1024);
  length = 0;
  push(value: number): void {
    if (this.length === this.#values.length) {
      const grown = new Uint32Array(2 * this.length);
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[this.length++] = value;
  }
  at(i: number): number {
    return this.#values[i] ?? 0;
  }
  get values(): Uint32Array {
    return this.#values.subarray(0, this.length);
  }
}

export class ExampleStore implements Examples {
  readonly #slabs: Slab[] = [];
  #free = 0;
  readonly #slab = new Column();
  readonly #start = new Column();
  readonly #length = new Column();
  readonly #input = new Column();
  readonly #file = new Column();
  readonly #line = new Column();
  readonly #files: string[] = [];
  /** A kind is a pair of weight and channel that occurs; a token keeps the number of its kind. */
  readonly #weights: number[] = [];
  readonly #channels: number[] = [];
  readonly #kindOf = new Map<number, Map<number, number>>();
  /** Examples with weights past the 256th kind keep them apart: 5 bytes a token more, and an entry here. */
  readonly #apart = new Map<number, { readonly weights: Float32Array; readonly channels: Uint8Array }>();
  #tokens = 0;

  get length(): number {
    return this.#length.length;
  }
  get tokens(): number {
    return this.#tokens;
  }
  /** Bytes that the arrays take, room for more included. */
  get bytes(): number {
    let bytes = 0;
    for (const s of this.#slabs) bytes += s.tokens.byteLength + s.kinds.byteLength;
    for (const a of this.#apart.values()) bytes += a.weights.byteLength + a.channels.byteLength;
    return bytes + 6 * 4 * this.length;
  }

  add(example: Example): void {
    const n = example.tokens.length;
    if (n > this.#free) {
      this.#slabs.push({
        tokens: new Int32Array(Math.max(n, SLAB_TOKENS)),
        kinds: new Uint8Array(Math.max(n, SLAB_TOKENS)),
      });
      this.#free = Math.max(n, SLAB_TOKENS);
    }
    const slab = this.#slabs.at(-1) as Slab;
    const start = slab.tokens.length - this.#free;
    slab.tokens.set(example.tokens, start);
    for (let i = 0; i < n; i++) {
      const kind = this.#kind(example.weights[i] ?? 0, example.channels?.[i] ?? 0);
      if (kind < 0) {
        const channels = example.channels ?? new Uint8Array(n);
        this.#apart.set(this.length, { weights: example.weights.slice(), channels: channels.slice() });
        break;
      }
      slab.kinds[start + i] = kind;
    }
    this.#free -= n;
    this.#tokens += n;
    this.#slab.push(this.#slabs.length - 1);
    this.#start.push(start);
    this.#length.push(n);
    this.#input.push(inputLength(example));
    this.#file.push(this.#placeOf(example.source.file));
    this.#line.push(example.source.line);
  }

  #placeOf(file: string): number {
    if (this.#files.at(-1) === file) return this.#files.length - 1;
    const known = this.#files.indexOf(file);
    return known < 0 ? this.#files.push(file) - 1 : known;
  }

  /** Number of the kind; −1 where there are too many. */
  #kind(weight: number, channel: number): number {
    const ofChannel = this.#kindOf.get(channel) ?? new Map<number, number>();
    this.#kindOf.set(channel, ofChannel);
    const known = ofChannel.get(weight);
    if (known !== undefined) return known;
    if (this.#weights.length === KINDS) return -1;
    ofChannel.set(weight, this.#weights.length);
    this.#channels.push(channel);
    return this.#weights.push(weight) - 1;
  }

  /** Example i; its tokens are a view and must not be written to. */
  at(i: number): Example | undefined {
    if (i < 0 || i >= this.length) return undefined;
    const slab = this.#slabs[this.#slab.at(i)] as Slab;
    const start = this.#start.at(i);
    const end = start + this.#length.at(i);
    const kinds = slab.kinds.subarray(start, end);
    return {
      tokens: slab.tokens.subarray(start, end),
      source: { file: this.#files[this.#file.at(i)] ?? '', line: this.#line.at(i) },
      ...(this.#apart.get(i) ?? {
        weights: Float32Array.from(kinds, (k) => this.#weights[k] ?? 0),
        channels: Uint8Array.from(kinds, (k) => this.#channels[k] ?? 0),
      }),
    };
  }

  /** inputLength of every sample: the sum over its examples, `per` to a sample. */
  inputLengths(per = 1): Uint32Array {
    if (per === 1) return this.#input.values;
    return Uint32Array.from({ length: this.length / per }, (_, i) =>
      this.#input.values.subarray(per * i, per * (i + 1)).reduce((a, b) => a + b, 0),
    );
  }

  *[Symbol.iterator](): Iterator<Example> {
    for (let i = 0; i < this.length; i++) yield this.at(i) as Example;
  }
}
