// New settings of a server that runs: which adapters come, go or change, and what would need a restart.
import { digestAdapter } from '../infer/adapters.js';
import type { AdapterStatus, ServedModels } from './served.js';
import type { ServeOptions } from './server.js';

/** What is decided once, by the names that configuration and command line give them. */
const FIXED: readonly (readonly [string, (o: ServeOptions) => unknown])[] = [
  ['requireGate', (o) => o.requireGate === true],
  ['allowOverride', (o) => o.allowOverride],
  ['revocations', (o) => o.revocations],
  ['name', (o) => o.name],
  ['policies and judge', (o) => o.screening],
  ['reasoning', (o) => o.reasoning],
  ['state', (o) => o.state],
  ['store', (o) => o.store],
  ['reviewTwoPersons', (o) => o.reviewTwoPersons],
  ['reviewWaitSeconds', (o) => o.reviewWaitMs],
  ['host', (o) => o.host],
  ['port', (o) => o.port],
  ['TLS on or off', (o) => o.tls !== undefined],
  ['maxBodyBytes', (o) => o.maxBodyBytes],
];

/** Options of the engine that are decided once, too. */
const engineOptions = (...all: readonly ServeOptions[]): typeof FIXED => {
  const names = new Set(all.flatMap(({ engine }) => Object.keys(engine) as (keyof ServeOptions['engine'])[]));
  names.delete('adapters');
  return [...names].map((name) => [name === 'contextTokens' ? 'context' : name, ({ engine }) => engine[name]] as const);
};

/** undefined: the settings name no such adapter. */
const statusIn = ({ engine, adapterStatus }: ServeOptions, name: string): AdapterStatus | undefined =>
  Object.hasOwn(engine.adapters ?? {}, name) ? (adapterStatus?.[name] ?? 'approved') : undefined;

/**
 * Brings the adapters to what `next` names. Those that admins loaded stay, as no settings named them.
 * @returns one line for each thing that changed, was refused, or waits for a restart
 */
export async function applySettings(
  served: ServedModels,
  before: ServeOptions,
  next: ServeOptions,
): Promise<readonly string[]> {
  const told: string[] = [];
  if (served.guard) {
    try {
      const line = served.guard.reload();
      if (line !== '') told.push(line);
    } catch (e) {
      told.push(`revocations: the list before holds: ${e instanceof Error ? e.message : String(e)}`);
    }
    told.push(...(await served.applyRevocations()));
  }
  const wanted = next.engine.adapters ?? {};
  for (const name of Object.keys(before.engine.adapters ?? {}))
    if (!Object.hasOwn(wanted, name) && served.models.some((m) => m.id === name)) {
      await served.unload(name);
      told.push(`adapter ${name}: unloaded`);
    }
  for (const [name, folder] of Object.entries(wanted)) {
    const known = served.models.find((m) => m.id === name),
      said = statusIn(next, name) ?? 'approved',
      // What an admin said since holds until the settings say something else.
      status = known?.folder === folder && said === statusIn(before, name) ? known.status : said;
    try {
      if (known?.folder !== folder || known.digest !== (await digestAdapter(folder))) {
        await served.load(name, folder, status);
        told.push(`adapter ${name}: ${known ? 'replaced' : 'loaded'}, ${status}`);
      } else if (known.status !== status) {
        served.setStatus(name, status);
        told.push(`adapter ${name}: ${status}`);
      } else if (status !== said) told.push(`adapter ${name}: stays ${status}, as an admin said`);
    } catch (e) {
      told.push(`adapter ${name}: not loaded, ${known ? 'the one before stays' : 'it is not there'}: ${String(e)}`);
    }
  }
  const same = (of: (o: ServeOptions) => unknown): boolean => JSON.stringify(of(before)) === JSON.stringify(of(next));
  for (const [what, of] of [...FIXED, ...engineOptions(before, next)])
    if (!same(of)) told.push(`${what}: changed, which needs a restart`);
  return told;
}
