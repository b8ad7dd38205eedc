// hf:// references on a command line: brought into the cache, and the command sees the path there.
import type { Command as CommanderCommand } from 'commander';
import { isReference } from '../hub/reference.js';
import { interruptSignal } from './command.js';
import { tell } from './terminal.js';

/** Commands whose arguments name a repo and not what is in it; a plan needs no weights. */
const OF_REPOS: ReadonlySet<string> = new Set(['pull', 'push', 'plan']);

/** Replaces each argument and option that is a reference. @throws as pullReferences */
export async function resolveReferences(action: CommanderCommand): Promise<void> {
  if (OF_REPOS.has(action.name())) return;
  const options = Object.entries(action.opts<Record<string, unknown>>());
  const given = [...action.processedArgs.flat(), ...options.map(([, value]) => value)].filter(
    (value): value is string => typeof value === 'string' && isReference(value),
  );
  if (given.length === 0) return;
  const [{ pullReferences }, { pullProgress, sayPullNotice }] = await Promise.all([
    import('../hub/pull.js'),
    import('./commands/pull.js'),
  ]);
  const quiet = action.opts<{ json?: boolean }>().json === true;
  const progress = pullProgress(quiet);
  const found = await pullReferences(
    { references: given },
    { onProgress: progress.update, onNotice: sayPullNotice, signal: interruptSignal() },
  ).finally(progress.finish);
  for (const [name, value] of options) {
    const local = typeof value === 'string' ? found[value]?.local : undefined;
    if (local !== undefined) action.setOptionValue(name, local);
  }
  for (const [i, value] of action.processedArgs.entries())
    if (typeof value === 'string' && found[value]) action.processedArgs[i] = found[value].local;
    else if (Array.isArray(value)) action.processedArgs[i] = value.map((v: string) => found[v]?.local ?? v);
  if (!quiet)
    for (const [reference, { commit }] of Object.entries(found))
      if (!reference.includes(commit)) tell(`${reference} is commit ${commit}`);
}
