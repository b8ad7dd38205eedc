// The proxies that the environment names, as curl reads them: HTTP_PROXY, HTTPS_PROXY, either case, with or without
// `http://`. What they hold may be a password: a variable is named, its value never.
import { ConfigError } from '../base/errors.js';

type Environment = Readonly<Record<string, string | undefined>>;
export interface Proxies {
  readonly http?: string;
  readonly https?: string;
}

/** @throws {ConfigError} hub_proxy */
function proxyOf(name: 'HTTP_PROXY' | 'HTTPS_PROXY', env: Environment): string | undefined {
  const given = (env[name.toLowerCase()] ?? env[name])?.trim();
  if (!given) return undefined;
  let url: URL | null = null;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(given) ? given : `http://${given}`);
  } catch {
    // said below
  }
  if (url && /^https?:$/.test(url.protocol) && url.hostname !== '') return url.href;
  throw new ConfigError(
    'hub_proxy',
    `${name}: ${url && !/^https?:$/.test(url.protocol) ? `is a proxy of kind ${url.protocol}//` : 'is no address'}, ` +
      'wanted that of an HTTP proxy, such as http://HOST:PORT; set it so, or unset it',
    { variable: name },
  );
}
export function proxiesOf(env: Environment = process.env): Proxies {
  const [http, https] = [proxyOf('HTTP_PROXY', env), proxyOf('HTTPS_PROXY', env)];
  return { ...(http === undefined ? {} : { http }), ...(https === undefined ? {} : { https }) };
}

/** The variable whose proxy an address is asked through where NO_PROXY does not name its host; null: none. */
export const proxyVariable = ({ http, https }: Proxies, { protocol }: URL): string | null =>
  protocol === 'https:' && https !== undefined ? 'HTTPS_PROXY' : http === undefined ? null : 'HTTP_PROXY';

/** The status with which a proxy refused to connect; 0: it was something else. */
export function refusedByProxy(e: unknown): number {
  for (let at = e, depth = 0; at instanceof Error && depth < 4; at = at.cause, depth++) {
    const status = /^Proxy response \((\d{3})\)/.exec(at.message)?.[1];
    if (status !== undefined) return Number(status);
  }
  return 0;
}
