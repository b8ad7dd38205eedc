// Long texts are judged in windows that overlap: a judge's context is bounded, and what it finds gets less in a long
// text. What is no longer than the overlap lies in one window as a whole, wherever it stands.

export interface WindowSize {
  /** Most characters (UTF-16 units) of a window. */
  readonly characters: number;
  /** What two neighbours have in common, at least. */
  readonly overlap: number;
}
export interface Window {
  /** UTF-16 offsets in the text. */
  readonly from: number;
  readonly to: number;
}

export const DEFAULT_WINDOW = 16_000;
export const MIN_WINDOW = 64;
/** An eighth, at most this. */
const MOST_OVERLAP = 2000;
export const windowSize = (characters: number): WindowSize => ({
  characters,
  overlap: Math.min(MOST_OVERLAP, Math.floor(characters / 8)),
});

const isLow = (c: number): boolean => c >= 0xdc00 && c < 0xe000;
/** Words are left whole where their ends are near: no place before `least`. */
function endOf(text: string, at: number, least: number): number {
  for (let i = at; i > least; i--) if (/\s/.test(text.charAt(i - 1))) return i;
  return isLow(text.charCodeAt(at)) ? at - 1 : at;
}

/** Windows in order; together they are the text. One for a text that fits. */
export function windowsOf(text: string, { characters, overlap }: WindowSize): readonly Window[] {
  const windows: Window[] = [];
  for (let from = 0; ; ) {
    if (text.length - from <= characters) return [...windows, { from, to: text.length }];
    const to = endOf(text, from + characters, from + characters - Math.floor(characters / 16));
    windows.push({ from, to });
    // Characters of two units are not parted, and each window brings something new.
    let next = to - overlap;
    if (isLow(text.charCodeAt(next))) next--;
    from = Math.max(from + 1, next);
    if (isLow(text.charCodeAt(from))) from++;
  }
}

/** Characters that lie in at least one of the windows. */
export function covered(windows: readonly Window[]): number {
  let [end, count] = [0, 0];
  for (const { from, to } of [...windows].sort((a, b) => a.from - b.from)) {
    count += Math.max(0, to - Math.max(from, end));
    end = Math.max(end, to);
  }
  return count;
}
