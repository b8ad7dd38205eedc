// Texts that end an answer. They are found in the text, however it is cut into pieces: what may be the beginning of one
// waits.

export class StopStrings {
  #held = '';
  #found: string | null = null;
  readonly #longest: number;

  constructor(readonly stops: readonly string[]) {
    this.#longest = Math.max(0, ...stops.map((s) => s.length));
  }
  /** One of them was found: no more text comes. */
  get stopped(): boolean {
    return this.#found !== null;
  }
  /** Which one it was. */
  get found(): string | null {
    return this.#found;
  }

  /** @returns text that certainly stands before any of them */
  push(text: string): string {
    if (this.stopped) return '';
    if (this.#longest === 0) return text;
    const all = this.#held + text;
    // The one that is complete first; of those that end together the longest.
    let from = -1,
      end = Number.POSITIVE_INFINITY;
    for (const stop of this.stops) {
      const at = all.indexOf(stop);
      if (at >= 0 && (at + stop.length < end || (at + stop.length === end && at < from)))
        [from, end] = [at, at + stop.length];
    }
    if (from >= 0) {
      this.#found = all.slice(from, end);
      this.#held = '';
      return all.slice(0, from);
    }
    let keep = Math.min(all.length, this.#longest - 1);
    while (keep > 0 && !this.stops.some((s) => s.length > keep && s.startsWith(all.slice(-keep)))) keep--;
    this.#held = keep === 0 ? '' : all.slice(-keep);
    return keep === 0 ? all : all.slice(0, -keep);
  }
  /** The text is over: what waited was none of them. */
  rest(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }
}
