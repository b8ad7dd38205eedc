// What else a text says than what stands in it: the same made plain, what is hidden in characters that are not seen,
// what is encoded, turned or written with figures for letters. A judge is shown each of them that differs, and the
// strictest verdict counts. Ordinary texts differ in none: what is only typography (quotes, accents, emoji) is no
// disguise.
import { decodedView } from './decoded.js';
import { revealed } from './hidden.js';
import { leetView } from './leet.js';
import { isOrdinary } from './ordinary.js';
import { plainView } from './plain.js';
import { rot13View } from './rot13.js';

/** Raised whenever a view may be another: part of the digests of verdicts. */
export const VIEWS_VERSION = 1;
export const VIEW_NAMES = ['raw', 'plain', 'hidden', 'decoded', 'rot13', 'leet'] as const;
export type ViewName = (typeof VIEW_NAMES)[number];
export interface View {
  readonly view: ViewName;
  readonly text: string;
}

/**
 * The text itself, then its other views, each read from the one before, so that disguises on top of each other come
 * off: what base64 gave may be rot13. Only those that differ from all before them.
 */
export const viewsOf = (text: string): readonly View[] => (isOrdinary(text) ? [{ view: 'raw', text }] : allViews(text));

/** The same without the first look. */
export function allViews(text: string): readonly View[] {
  const views: View[] = [{ view: 'raw', text }];
  const add = (view: ViewName, seen: string): string => {
    if (seen.trim() !== '' && !views.some((v) => v.text === seen)) views.push({ view, text: seen });
    return seen;
  };
  const plain = add('plain', plainView(text));
  const shown = revealed(text);
  const open = shown === text ? plain : add('hidden', plainView(shown));
  const decoded = add('decoded', decodedView(open));
  const turned = add('rot13', rot13View(decoded));
  add('leet', leetView(turned));
  return views;
}
