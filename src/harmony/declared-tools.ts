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
    for (const line of content.split('\n')) {
      const opens = /^namespace (\w+) \{$/.exec(line);
      if (opens) namespace = opens[1] ?? null;
      else if (line === `} // namespace ${namespace}`) namespace = null;
      const tool = namespace === null ? null : /^type ([^\s=]+) = \(/.exec(line);
      if (tool) names.add(`${namespace}.${tool[1]}`);
    }
  }
  return [...names];
}
