// The tools of a conversation, read from the text that declares them: what a model may call.
import type { Message } from './types.js';

/**
 * `functions.get_weather` for each tool of a developer message, and those of built-in namespaces of a system message.
 */
export function declaredTools(messages: readonly Message[]): readonly string[] {
  const names = new Set<string>();
  for (const { role, content } of messages) {
    if (role !== 'system' && role !== 'developer') continue;
    let namespace: string | null = null;
    // Of long texts most lines are none of ours: what begins one is looked for, and these are not cut out.
    const text = `\n${content}`,
      next = BEGINNINGS.map((b) => text.indexOf(b));
    for (;;) {
      const which = earliest(next);
      if (which < 0) break;
      const at = next[which]!,
        opening = next[0]!;
      if (namespace === null && which !== 0) {
        next[which] = opening < 0 ? -1 : text.indexOf(BEGINNINGS[which]!, opening);
        continue;
      }
      next[which] = text.indexOf(BEGINNINGS[which]!, at + 1);
      const end = text.indexOf('\n', at + 1),
        line = text.slice(at + 1, end < 0 ? text.length : end);
      const opens = /^namespace (\w+) \{$/.exec(line);
      if (opens) namespace = opens[1] ?? null;
      else if (line === `} // namespace ${namespace}`) namespace = null;
      const tool = namespace === null ? null : /^type ([^\s=]+) = \(/.exec(line);
      if (tool) names.add(`${namespace}.${tool[1]}`);
    }
  }
  return [...names];
}
/** Beginnings of lines that matter: the first opens a namespace, without which the others say nothing. */
const BEGINNINGS: readonly string[] = ['\nnamespace ', '\n}', '\ntype '];
/** Which of the places comes first; −1 is no place, and the answer where there is none. */
function earliest(places: readonly number[]): number {
  let first = -1;
  for (const [i, at] of places.entries()) if (at >= 0 && (first < 0 || at < places[first]!)) first = i;
  return first;
}
