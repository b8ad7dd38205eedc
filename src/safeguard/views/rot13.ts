// Text turned by rot13: words that are likelier as English when they are turned back. Which words in a row those are is
// found by the letters alone, so that one sentence is found in a long text.

/** Percent of the letters of English text, a to z. */
const SHARE = [
  8.2, 1.5, 2.8, 4.3, 12.7, 2.2, 2.0, 6.1, 7.0, 0.15, 0.77, 4.0, 2.4, 6.7, 7.5, 1.9, 0.095, 6.0, 6.3, 9.1, 2.8, 0.98,
  2.4, 0.15, 2.0, 0.074,
];
/** Nats that a letter gains by being turned; no letter says more than that. */
const MOST = 2;
export const GAIN = SHARE.map((share, i) =>
  Math.max(-MOST, Math.min(MOST, Math.log(SHARE[(i + 13) % 26] as number) - Math.log(share))),
);
/** Words in a row gain so much together. */
export const ENOUGH = 9;
export const MIN_LETTERS = 9;

export const rot13 = (text: string): string =>
  text.replaceAll(/[A-Za-z]/g, (c) => {
    const base = c <= 'Z' ? 65 : 97;
    return String.fromCharCode(((c.charCodeAt(0) - base + 13) % 26) + base);
  });

interface Run {
  from: number;
  to: number;
  gain: number;
  letters: number;
}

/** The text with such runs turned back. */
export function rot13View(text: string): string {
  const runs: Run[] = [];
  let now: Run | null = null;
  let best: Run | null = null;
  const end = (): void => {
    if (best) runs.push(best);
    now = best = null;
  };
  for (const match of text.matchAll(/[A-Za-z]+/g)) {
    const [word] = match;
    let gain = 0;
    for (let i = 0; i < word.length; i++) gain += GAIN[(word.charCodeAt(i) | 32) - 97] as number;
    const to = match.index + word.length;
    const grown: Run = now
      ? { from: (now as Run).from, to, gain: (now as Run).gain + gain, letters: (now as Run).letters + word.length }
      : { from: match.index, to, gain, letters: word.length };
    // A run is over where it lost all that it had, or half of its best.
    if (grown.gain <= 0 || (best && grown.gain < (best as Run).gain / 2)) {
      end();
      if (gain > 0) now = { from: match.index, to, gain, letters: word.length };
    } else now = grown;
    const run: Run | null = now;
    if (run && run.gain >= ENOUGH && run.letters >= MIN_LETTERS && (!best || run.gain >= (best as Run).gain))
      best = { ...run };
  }
  end();
  if (runs.length === 0) return text;
  let [out, at] = ['', 0];
  for (const { from, to } of runs) {
    out += text.slice(at, from) + rot13(text.slice(from, to));
    at = to;
  }
  return out + text.slice(at);
}
