// What `temper serve` serves: the command line over the configuration file over the defaults.
import { dirname, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { parseBytes } from '../base/units.js';
import type { ServeConfig } from '../serve/config.js';
import type { AdapterStatus } from '../serve/served.js';
import type { ServeOptions } from '../serve/server.js';
import type { ModelOptions, ScreenOptions } from './engine-options.js';

export type CommandOptions = Omit<ModelOptions, 'adapter' | 'model'> &
  ScreenOptions & {
    readonly model?: string;
    readonly adapter: readonly string[];
    readonly config?: string;
    readonly name?: string;
    readonly host: string;
    readonly port: number;
    readonly tlsCert?: string;
    readonly tlsKey?: string;
    readonly apiKeyFile?: string;
    readonly adminKeyFile?: string;
    readonly slots: number;
    readonly queue: number;
    readonly queueSeconds: number;
    readonly drainSeconds?: number;
    readonly maxTokens?: number;
    readonly state?: string;
    readonly store?: string;
    readonly reviewKeyFile?: string;
    readonly reviewTwoPersons?: boolean;
    readonly reviewWaitSeconds: number;
    readonly maxBodyBytes: number;
    readonly cacheTokens?: number;
    readonly prefixes: number;
    readonly prefixCache?: string;
    readonly prefixCacheBytes: string;
    readonly reasoning: 'auto' | 'allowed' | 'never';
    readonly playground: boolean;
    readonly requireGate?: boolean;
    readonly allowOverride?: readonly string[];
    readonly revocations?: string;
    readonly revocationKey?: string;
    readonly json?: boolean;
  };
type Adapters = Readonly<Record<string, { readonly path: string; readonly status: AdapterStatus }>>;

/** NAME=DIR, each name once. */
function adaptersOf(given: readonly string[]): Adapters {
  const adapters: Record<string, { path: string; status: AdapterStatus }> = {};
  for (const text of given) {
    const at = text.indexOf('=');
    const name = text.slice(0, at),
      path = text.slice(at + 1);
    if (at < 1 || path === '' || Object.hasOwn(adapters, name))
      throw new ConfigError('bad_option', `--adapter ${text}: wanted NAME=DIR, each name once`);
    adapters[name] = { path, status: 'approved' };
  }
  return adapters;
}
const adaptersIn = (config: ServeConfig): Adapters =>
  Object.fromEntries(
    Object.entries(config.adapters ?? {}).map(([name, a]) => [
      name,
      typeof a === 'string' ? { path: a, status: 'approved' as const } : a,
    ]),
  );

/** Fields that are there: an absent one must not stand as undefined over one below it. */
const given = <T extends object>(o: T): Partial<T> =>
  Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as Partial<T>;

/**
 * Reads the file, where there is one: called again, it has what stands there now.
 * @param isGiven whether an option stood on the command line
 * @throws {ConfigError} bad_option, bad_serve_config
 */
export async function serveOptions(
  options: CommandOptions,
  isGiven: (name: string) => boolean,
  log: (line: string) => void,
): Promise<ServeOptions> {
  const config: ServeConfig =
    options.config === undefined ? {} : (await import('../serve/config.js')).readServeConfig(options.config);
  const { adapters: _, tls, keys, adminKeys, reviewKeys, detectors, ...plain } = config;
  const typed = Object.fromEntries(Object.entries(options).filter(([name]) => isGiven(name)));
  const looked = detectors && {
    detectors: (await import('../safeguard/detectors/options.js')).detectorOptions(
      detectors,
      dirname(resolve(options.config ?? '')),
    ),
  };
  const all = { ...options, ...given(plain), ...looked, ...typed } as CommandOptions;
  if (all.model === undefined)
    throw new ConfigError('bad_option', 'wanted --model DIR, or a --config FILE with a line `model: DIR`');
  if ((all.tlsCert === undefined) !== (all.tlsKey === undefined))
    throw new ConfigError('bad_option', '--tls-cert FILE and --tls-key FILE go together');
  if ((all.revocations === undefined) !== (all.revocationKey === undefined))
    throw new ConfigError('bad_option', '--revocations FILE and --revocation-key FILE go together');
  if (all.allowOverride?.length && all.requireGate !== true)
    throw new ConfigError(
      'bad_option',
      '--allow-override FILE is for --require-gate, without which nothing is refused',
    );
  const adapters = { ...adaptersIn(config), ...adaptersOf(options.adapter) };
  const prefixCache =
    all.prefixCache === undefined ? undefined : { folder: all.prefixCache, bytes: parseBytes(all.prefixCacheBytes) };
  const { threads, device, precision, denseDtype, denseCache, kvDtype, context, cacheTokens, memoryLimit } = all;
  const { speculation, draft } = all;
  return {
    engine: {
      model: all.model,
      slots: all.slots,
      prefixes: all.prefixes,
      adapters: Object.fromEntries(Object.entries(adapters).map(([name, { path }]) => [name, path])),
      ...given({
        threads,
        device,
        precision,
        denseDtype,
        denseCache,
        kvDtype,
        contextTokens: context,
        cacheTokens,
        prefixCache,
      }),
      ...given({ speculation, draft }),
      ...(memoryLimit === undefined ? {} : { memoryLimit: parseBytes(memoryLimit) }),
    } as ServeOptions['engine'],
    adapterStatus: Object.fromEntries(Object.entries(adapters).map(([name, { status }]) => [name, status])),
    name: all.name,
    screening: asksForScreening(all) ? { ...screeningOf(all), ...(prefixCache ? { prefixCache } : {}) } : undefined,
    reasoning: all.reasoning,
    host: all.host,
    port: all.port,
    tls: all.tlsCert !== undefined && all.tlsKey !== undefined ? { cert: all.tlsCert, key: all.tlsKey } : tls,
    keys,
    apiKeyFile: all.apiKeyFile,
    adminKeys,
    adminKeyFile: all.adminKeyFile,
    queue: all.queue,
    queueMs: all.queueSeconds * 1000,
    drainMs: all.drainSeconds === undefined ? undefined : all.drainSeconds * 1000,
    state: all.state,
    store: all.store,
    reviewKeys,
    reviewKeyFile: all.reviewKeyFile,
    reviewTwoPersons: all.reviewTwoPersons,
    reviewWaitMs: all.reviewWaitSeconds * 1000,
    maxBodyBytes: all.maxBodyBytes,
    maxTokens: all.maxTokens,
    playground: all.playground,
    ...(all.requireGate === true ? { requireGate: true } : {}),
    ...(all.allowOverride?.length ? { allowOverride: all.allowOverride } : {}),
    ...(all.revocations !== undefined && all.revocationKey !== undefined
      ? { revocations: { list: all.revocations, key: all.revocationKey } }
      : {}),
    log,
  };
}
/** Something of it is asked for; that what it lacks is missing is told where it is opened. */
const asksForScreening = ({ policy, judge, detector = [], detectors, log, shadow }: CommandOptions): boolean =>
  shadow === true || policy.length > 0 || [judge, detectors, log].some((o) => o !== undefined) || detector.length > 0;
const screeningOf = (all: CommandOptions): ScreenOptions => ({
  policy: all.policy,
  judgeTimeout: all.judgeTimeout,
  judgeMaxTokens: all.judgeMaxTokens,
  judgeConcurrency: all.judgeConcurrency,
  ...(given({
    judge: all.judge,
    judgeModel: all.judgeModel,
    judgeEffort: all.judgeEffort,
    judgeContext: all.judgeContext,
    judgeUnchecked: all.judgeUnchecked,
    judgeCheck: all.judgeCheck,
    judgeContract: all.judgeContract,
    votes: all.votes,
    judgeViews: all.judgeViews,
    judgeWindow: all.judgeWindow,
    judgeHedge: all.judgeHedge,
    judgeCanaries: all.judgeCanaries,
    judgeProbe: all.judgeProbe,
    shadow: all.shadow,
    holdAhead: all.holdAhead,
    detector: all.detector,
    detectors: all.detectors,
    threads: all.threads,
    log: all.log,
    logKey: all.logKey,
  }) as Partial<ScreenOptions>),
});
