// The server: engine, screen and routes behind one port. It takes new settings while it runs, and drains before it
// ends.
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { ConfigError } from '../base/errors.js';
import { versions } from '../base/machine.js';
import type { Guard } from '../compose/gate-guard.js';
import type { Holding } from '../compose/held-turn.js';
import type { ScreeningOptions } from '../compose/screening.js';
import type { EngineInfo, EngineOptions } from '../infer/protocol.js';
import { healthOf } from '../safeguard/judge-health.js';
import { Admission } from './admission.js';
import { Callers } from './callers.js';
import { Connections } from './connections.js';
import { keysOf, type Pem, readTls, requirePolicies, reviewersOf } from './credentials.js';
import type { ReasoningRule } from './generation.js';
import { takeOldProbes, tellFaults, unreadable } from './http-faults.js';
import type { KeyEntry } from './keys.js';
import type { ScreeningMeter } from './meter.js';
import { createMemoryStore, DEFAULT_STORE } from './response-store.js';
import { type AdapterStatus, openServed, type ServedModel } from './served.js';
import { endSlowReaders, httpOptions, TIMEOUTS, type Timeouts } from './timeouts.js';
import { createTracing } from './tracing.js';

export interface ServeOptions {
  /** Model, adapters by name, slots; the engine's options. */
  readonly engine: EngineOptions;
  /** Of adapters by name: who may use them. Default approved. */
  readonly adapterStatus?: Readonly<Record<string, AdapterStatus>> | undefined;
  /** Only adapters are loaded that have a PASS of the release gate for exactly what is at hand. */
  readonly requireGate?: boolean | undefined;
  /** With it: public keys of those whose signed overrides are honoured. */
  readonly allowOverride?: readonly string[] | undefined;
  /** Signed list of adapters that may no longer be used, as `temper gate revoke` makes it; read again on reload. */
  readonly revocations?: { readonly list: string; readonly key: string } | undefined;
  /** Name of the base in requests; default its folder's. */
  readonly name?: string | undefined;
  /** Policies and judge; no policy: nothing is judged. */
  readonly screening?: ScreeningOptions | undefined;
  /** When a model's thoughts leave, default `auto`: where there is no policy. */
  readonly reasoning?: ReasoningRule | undefined;
  /** Default 127.0.0.1; another one that is not loopback needs keys. */
  readonly host?: string | undefined;
  /** 0: one that is free. Default 8080. */
  readonly port?: number | undefined;
  /** PEM files. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  /** Who may ask, with limits; beside those of `apiKeyFile`. */
  readonly keys?: readonly KeyEntry[] | undefined;
  readonly apiKeyFile?: string | undefined;
  /** Folder where answers of /v1/responses are kept; default: in memory, gone with the server. */
  readonly state?: string | undefined;
  /**
   * What outlives the server and may be shared by several: a file of SQLite, or postgres://USER@HOST/DATABASE. Keeps
   * reviews, and the answers of /v1/responses where there is no `state`.
   */
  readonly store?: string | undefined;
  /** Who may review what was held, at /review; none: there is no such page. Needs `store`. */
  readonly reviewKeys?: readonly KeyEntry[] | undefined;
  readonly reviewKeyFile?: string | undefined;
  /** Two people must approve each item. Default: one. */
  readonly reviewTwoPersons?: boolean | undefined;
  /** How long a held request waits for a decision, ms. Default 0: what is decided is recorded alone. */
  readonly reviewWaitMs?: number | undefined;
  /** Who may use /admin; none: there are no such routes. */
  readonly adminKeys?: readonly KeyEntry[] | undefined;
  readonly adminKeyFile?: string | undefined;
  /** Requests that may wait for a slot, default 64, and how long, default 60,000 ms. */
  readonly queue?: number | undefined;
  readonly queueMs?: number | undefined;
  /** Default 2 MiB. */
  readonly maxBodyBytes?: number | undefined;
  /** Most tokens of an answer where a request does not say; default: what the context holds. */
  readonly maxTokens?: number | undefined;
  /** Longest time that requests under way may take when it ends, ms; then they are cut off. Default: all they need. */
  readonly drainMs?: number | undefined;
  /** How long clients are waited for. */
  readonly timeouts?: Partial<Timeouts> | undefined;
  /** A page at `/` to talk to it, for who has a key, or sits at this machine. Default: there is one. */
  readonly playground?: boolean | undefined;
  /** Told of faults of the server's own and of what admins did, one line each; default stderr. */
  readonly log?: ((line: string) => void) | undefined;
}
export interface TemperServer {
  readonly url: string;
  readonly models: readonly ServedModel[];
  readonly info: EngineInfo;
  /** What nobody checked about the judge. */
  readonly notices: readonly string[];
  /**
   * Takes new settings; requests under way go on. What cannot change while it runs stays as it was.
   * @returns one line for each thing that changed, or did not
   * @throws {ConfigError} what is refused; then nothing has changed
   */
  reload(options: ServeOptions): Promise<readonly string[]>;
  /** Runs its code while nobody asks, so that first requests are answered as fast as later ones; ends by itself. */
  rehearse(): Promise<void>;
  /** Takes no new requests, ends those under way, then closes. @param signal ends them at once */
  close(signal?: AbortSignal): Promise<void>;
}

const LOOPBACK: readonly string[] = ['127.0.0.1', '::1', 'localhost'];
const MIB = 1 << 20;
/** Beyond that, connections are closed at once. */
const MOST_CONNECTIONS = 4096;
/** How often connections that nothing comes on are looked for, while the server ends. */
const IDLE_MS = 20;
/** Beginnings of conversations that are kept computed. */
const PREFIXES = 16;

const messageOf = (e: unknown): string => (e instanceof Error ? e.message : String(e));

const openScreening = async (
  ...given: Parameters<typeof import('../compose/screening.js').openScreen>
): ReturnType<typeof import('../compose/screening.js').openScreen> =>
  (await import('../compose/screening.js')).openScreen(...given);

const guardOf = async ({
  requireGate = false,
  allowOverride,
  revocations,
}: ServeOptions): Promise<Guard | undefined> =>
  requireGate || revocations !== undefined
    ? (await import('../compose/gate-guard.js')).openGuard({
        required: requireGate,
        overrides: allowOverride,
        revocations,
      })
    : undefined;

/**
 * @throws {ConfigError} bad_option, bad_keys · what loading refuses; nothing stays open then
 */
export async function serve(options: ServeOptions, signal?: AbortSignal): Promise<TemperServer> {
  const { host = '127.0.0.1', port = 8080 } = options;
  const loopback = LOOPBACK.includes(host);
  const keys = keysOf(options.keys, options.apiKeyFile);
  if (!loopback && keys === null)
    throw new ConfigError('bad_option', `--host ${host}: others can reach it; give --api-key-file FILE`);
  let adminKeys = keysOf(options.adminKeys, options.adminKeyFile);
  let reviewers = reviewersOf(options);
  const tls = options.tls ? readTls(options.tls) : null;
  const write = options.log ?? ((line) => void process.stderr.write(`temper: ${line}\n`));
  const log = options.screening?.shadow === true ? (line: string): void => write(`shadow: ${line}`) : write;
  const closers: (() => Promise<void>)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const c of closers.splice(0).reverse()) await c();
  };
  // What it answers with is read while the engine's thread reads the model.
  const code = Promise.all([
    import('./app.js'),
    import('./bodies.js'),
    import('./meter.js'),
    import('@hono/node-server'),
    import('./warm-up.js').then(({ warmUp }) => warmUp()),
    options.screening ? import('../compose/held-turn.js') : null,
  ]);
  code.catch(() => {}); // told where it is waited for
  try {
    let screeningMeter: ScreeningMeter | undefined;
    const tracing = options.screening ? await createTracing(versions().temper) : null;
    const opened = options.screening
      ? await openScreening({ ...options.screening, probeNow: true }, signal, {
          by: 'serve',
          onVerdict: (verdict) => {
            screeningMeter?.verdict(verdict);
            tracing?.verdict(verdict);
          },
          onCommit: (commit) => {
            screeningMeter?.commit(commit);
            tracing?.commit(commit);
          },
        })
      : null;
    if (opened) closers.push(() => opened.close());
    requirePolicies(options.keys, opened?.screen ?? null);
    const slots = options.engine.slots ?? 16;
    const guard = await guardOf(options);
    const served = await openServed(
      { prefixes: PREFIXES, ...options.engine, slots, name: options.name, status: options.adapterStatus, guard },
      signal,
    );
    closers.push(() => served.engine.close());
    closers.push(() => served.structures.close());
    const [{ createApp }, { Bodies }, { createMeter }, { getRequestListener }] = await code;
    const bodies = new Bodies(options.maxBodyBytes ?? 2 * MIB);
    closers.push(() => bodies.close());
    const note = (e: unknown, requestId?: string): void =>
      log(`request${requestId === undefined ? '' : ` ${requestId}`} failed: ${messageOf(e)}`);
    const review =
      options.store === undefined
        ? null
        : await (await import('./review/open.js')).openReview(
            {
              where: options.store,
              twoPersons: options.reviewTwoPersons ?? false,
              waitMs: options.reviewWaitMs ?? 0,
              keys: () => reviewers,
              tls: tls !== null,
              readBody: (c) => bodies.read(c),
              log: opened?.log?.reviews ?? null,
              note: log,
              fault: note,
            },
            signal,
          );
    if (review) closers.push(() => review.close());
    const files = options.state === undefined ? null : await import('./response-files.js'),
      held = files?.holdFolder(options.state ?? '');
    closers.push(async () => held?.[Symbol.dispose]());
    const responses =
      files && options.state !== undefined
        ? files.createFileStore(options.state)
        : (review?.responses ?? createMemoryStore({ ...DEFAULT_STORE, bytes: 64 * MIB }));
    const admission = new Admission({ slots, queue: options.queue ?? 64, queueMs: options.queueMs ?? 60_000 });
    const meter = opened
      ? createMeter(admission, () => healthOf(opened.judge, opened.screen), opened.mode)
      : createMeter(admission);
    screeningMeter = meter.screening;
    const holding: Holding = {
      ...(opened ? { mode: opened.mode } : {}),
      ...(opened?.ahead === undefined ? {} : { ahead: opened.ahead }),
      ...(opened?.log ? { log: opened.log.held } : {}),
      ...(review ? { onHeld: review.onHeld } : {}),
      onSentence: (ms) => meter.screening?.held(ms),
    };
    const callers = new Callers(
      {
        served,
        screen: opened?.screen ?? null,
        holding,
        reasoning: options.reasoning ?? 'auto',
        admission,
        meter,
      },
      keys,
    );
    let { maxTokens, playground = true } = options;
    const app = createApp({
      served,
      callers,
      responses,
      adminKeys: () => adminKeys,
      hosts: loopback ? new Set(['127.0.0.1', '[::1]', 'localhost']) : null,
      bodies,
      maxTokens: () => maxTokens ?? served.engine.info.contextTokens,
      playground: () => playground,
      review: review?.console ?? null,
      log: note,
      note: log,
    });
    app.router.match('GET', '/health'); // the first request sorts the routes
    const timeouts = { ...TIMEOUTS, ...options.timeouts },
      serverOptions = httpOptions(timeouts);
    const listener = getRequestListener(app.fetch, { errorHandler: unreadable(note) });
    const server = tls
      ? createTlsServer({ ...serverOptions, ...tls }, listener)
      : createServer(serverOptions, listener);
    server.maxConnections = MOST_CONNECTIONS;
    tellFaults(server);
    takeOldProbes(server);
    endSlowReaders(server, timeouts);
    const connections = new Connections(server);
    const address = await new Promise<AddressInfo>((done, fail) => {
      server.once('error', (e: NodeJS.ErrnoException) =>
        fail(
          new ConfigError(
            'bad_option',
            `--host ${host} --port ${port}: cannot be listened on (${e.code ?? e.message})`,
          ),
        ),
      );
      server.listen(port, host, () => done(server.address() as AddressInfo));
    });
    const shut = (): Promise<void> => new Promise((done) => void server.close(() => done()));
    let closing: Promise<void> | undefined,
      current = options;
    const ending = new AbortController();
    const setTls = (pem: Pem): void => {
      if ('setSecureContext' in server) server.setSecureContext(pem);
    };
    const set = (next: ServeOptions): void => {
      const fresh = keysOf(next.keys, next.apiKeyFile);
      if (!loopback && fresh === null)
        throw new ConfigError('bad_option', 'keys: others can reach this server; it cannot do without keys');
      // As a file says that is empty while it is written.
      if (fresh === null && callers.wantsKeys)
        throw new ConfigError('bad_option', 'keys: there are none any more; a server that had some restarts for that');
      const admins = keysOf(next.adminKeys, next.adminKeyFile),
        asked = reviewersOf(next),
        pem = tls && next.tls ? readTls(next.tls) : null;
      requirePolicies(next.keys, opened?.screen ?? null);
      if (pem) setTls(pem);
      callers.setKeys(fresh);
      adminKeys = admins;
      reviewers = review ? asked : null;
      ({ maxTokens, playground = true } = next);
      admission.setQueue(next.queue ?? 64, next.queueMs ?? 60_000);
    };
    return {
      url:
        `http${tls ? 's' : ''}://` +
        `${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`,
      get models() {
        return served.models;
      },
      info: served.engine.info,
      notices: opened?.notices ?? [],
      async reload(next) {
        set(next);
        const { applySettings } = await import('./settings.js');
        const told = await applySettings(served, current, next);
        current = next;
        return told;
      },
      async rehearse() {
        const { rehearse } = await import('./rehearsal.js');
        const busy = (): boolean => admission.running > 0;
        // A judge's engines have chosen when code is compiled.
        await rehearse(served.engine.info, { busy, signal: ending.signal, soon: opened === null });
      },
      close(stop) {
        closing ??= (async () => {
          ending.abort();
          const closed = shut();
          const now = (): void => {
            if ('closeAllConnections' in server) server.closeAllConnections();
          };
          stop?.addEventListener('abort', now, { once: true });
          if (stop?.aborted) now();
          // People may take hours: what they decide later is recorded.
          void review?.endWaiting().catch(note);
          const late = current.drainMs === undefined ? undefined : setTimeout(now, current.drainMs);
          await Promise.race([admission.drain(), closed]);
          // Answers still leave; kept alive by their clients, but nothing is asked on them any more.
          const idle = setInterval(() => {
            if ('closeIdleConnections' in server) server.closeIdleConnections();
            connections.endUnlessAnswering();
          }, IDLE_MS);
          await closed;
          clearInterval(idle);
          clearTimeout(late);
          await closeAll();
        })();
        return closing;
      },
    };
  } catch (e) {
    await closeAll();
    throw e;
  }
}
