// The server: engine, screen and routes behind one port. It drains before it ends.
import type { AddressInfo } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import { ConfigError } from '../base/errors.js';
import { openScreen, type ScreeningOptions } from '../compose/screening.js';
import type { EngineInfo, EngineOptions } from '../infer/protocol.js';
import { Admission } from './admission.js';
import { createApp } from './app.js';
import type { ReasoningRule } from './generation.js';
import { readApiKeys } from './keys.js';
import { createMeter } from './meter.js';
import { createFileStore } from './response-files.js';
import { createMemoryStore, DEFAULT_STORE } from './response-store.js';
import { openServed, type ServedModel } from './served.js';

export interface ServeOptions {
  /** Model, adapters by name, slots; the engine's options. */
  readonly engine: EngineOptions;
  /** Name of the base in requests; default its folder's. */
  readonly name?: string | undefined;
  /** Policies and judge; no policy: nothing is judged. */
  readonly screening?: ScreeningOptions | undefined;
  /** When a model's thoughts leave, default `auto`: where there is no policy. */
  readonly reasoning?: ReasoningRule | undefined;
  /** Default 127.0.0.1; another one that is not loopback needs `apiKeyFile`. */
  readonly host?: string | undefined;
  /** 0: one that is free. Default 8080. */
  readonly port?: number | undefined;
  readonly apiKeyFile?: string | undefined;
  /** Folder where answers of /v1/responses are kept; default: in memory, gone with the server. */
  readonly state?: string | undefined;
  /** Requests that may wait for a slot, default 64, and how long, default 60,000 ms. */
  readonly queue?: number | undefined;
  readonly queueMs?: number | undefined;
  /** Default 8 MiB. */
  readonly maxBodyBytes?: number | undefined;
  /** Most tokens of an answer where a request does not say; default: what the context holds. */
  readonly maxTokens?: number | undefined;
  /** Told of faults of the server's own, one line each; default stderr. */
  readonly log?: ((line: string) => void) | undefined;
}
export interface TemperServer {
  readonly url: string;
  readonly models: readonly ServedModel[];
  readonly info: EngineInfo;
  /** What nobody checked about the judge. */
  readonly notices: readonly string[];
  /** Takes no new requests, ends those under way, then closes. @param signal ends them at once */
  close(signal?: AbortSignal): Promise<void>;
}

const LOOPBACK: readonly string[] = ['127.0.0.1', '::1', 'localhost'];
const MIB = 1 << 20;
/** A head that is not there by then is not coming. */
const HEADERS_MS = 10_000;
const BODY_MS = 60_000;
/** How often connections that nothing comes on are looked for, while the server ends. */
const IDLE_MS = 20;

const messageOf = (e: unknown): string => (e instanceof Error ? e.message : String(e));

/**
 * @throws {ConfigError} bad_option, port_taken, bad_keys · what loading refuses; nothing stays open then
 */
export async function serve(options: ServeOptions, signal?: AbortSignal): Promise<TemperServer> {
  const { host = '127.0.0.1', port = 8080 } = options;
  const loopback = LOOPBACK.includes(host);
  if (!loopback && options.apiKeyFile === undefined)
    throw new ConfigError('bad_option', `--host ${host}: others can reach it; give --api-key-file FILE`);
  const keys = options.apiKeyFile === undefined ? null : readApiKeys(options.apiKeyFile);
  const log = options.log ?? ((line) => void process.stderr.write(`temper: ${line}\n`));
  const closers: (() => Promise<void>)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const c of closers.splice(0).reverse()) await c();
  };
  try {
    const opened = options.screening ? await openScreen(options.screening, signal) : null;
    if (opened) closers.push(() => opened.close());
    const slots = options.engine.slots ?? 16;
    const served = await openServed({ ...options.engine, slots, name: options.name }, signal);
    closers.push(() => served.engine.close());
    const responses =
      options.state === undefined
        ? createMemoryStore({ ...DEFAULT_STORE, bytes: 64 * MIB })
        : createFileStore(options.state);
    const admission = new Admission({ slots, queue: options.queue ?? 64, queueMs: options.queueMs ?? 60_000 });
    const app = createApp({
      served,
      screen: opened?.screen ?? null,
      reasoning: options.reasoning ?? 'auto',
      responses,
      admission,
      meter: createMeter(admission),
      keys,
      hosts: loopback ? new Set(['127.0.0.1', '[::1]', 'localhost']) : null,
      maxBodyBytes: options.maxBodyBytes ?? 8 * MIB,
      maxTokens: options.maxTokens ?? served.engine.info.contextTokens,
      log: (e) => log(`request failed: ${messageOf(e)}`),
    });
    const server = createAdaptorServer({
      fetch: app.fetch,
      serverOptions: { headersTimeout: HEADERS_MS, requestTimeout: BODY_MS, maxHeaderSize: 16 << 10 },
    });
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
    let closing: Promise<void> | undefined;
    return {
      url: `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`,
      models: served.models,
      info: served.engine.info,
      notices: opened?.notices ?? [],
      close(stop) {
        closing ??= (async () => {
          const closed = shut();
          const now = (): void => {
            if ('closeAllConnections' in server) server.closeAllConnections();
          };
          stop?.addEventListener('abort', now, { once: true });
          if (stop?.aborted) now();
          await Promise.race([admission.drain(), closed]);
          // Answers still leave; kept alive by their clients, but nothing is asked on them any more.
          const idle = setInterval(() => {
            if ('closeIdleConnections' in server) server.closeIdleConnections();
          }, IDLE_MS);
          closed.finally(() => clearInterval(idle));
          await closed;
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
