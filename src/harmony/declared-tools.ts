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
    for (let at = nextNamespace(content, 0); at >= 0; ) {
      const end = content.indexOf('\n', at);
      // Of long texts most lines are none of ours: these are not cut out.
      if (LETTERS.includes(content.charCodeAt(at))) {
        const line = content.slice(at, end < 0 ? content.length : end);
        const opens = /^namespace (\w+) \{$/.exec(line);
        if (opens) namespace = opens[1] ?? null;
        else if (line === `} // namespace ${namespace}`) namespace = null;
        const tool = namespace === null ? null : /^type ([^\s=]+) = \(/.exec(line);
        if (tool) names.add(`${namespace}.${tool[1]}`);
      }
      at = end < 0 ? -1 : namespace === null ? nextNamespace(content, end) : end + 1;
    }
  }
  return [...names];
}
/** First letters of `namespace`, `}` and `type`. */
const LETTERS: readonly number[] = [0x6e, 0x7d, 0x74];
/** Where a line begins with one, at `from` or after; −1: nowhere. */
function nextNamespace(content: string, from: number): number {
  if (from === 0 && content.startsWith('namespace ')) return 0;
  const at = content.indexOf('\nnamespace ', from);
  return at < 0 ? -1 : at + 1;
}
