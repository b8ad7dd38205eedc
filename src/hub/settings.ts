// Which hub, as whom: from options and from the variables that Hugging Face's own tools read. The token is kept out of
// everything that is printed.
import { homedir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';

export interface HubSettings {
  /** Without a slash at the end. */
  readonly endpoint: string;
  readonly token: string | null;
  /** HF_HUB_OFFLINE: nothing is asked of anybody. */
  readonly offline: boolean;
  /** Tries of a request beyond the first, as long as it brings nothing. */
  readonly retries: number;
  /** How long a connection may be silent, ms. */
  readonly stallMs: number;
}
export interface HubOptions {
  /** Default: HF_ENDPOINT, else https://huggingface.co. */
  readonly endpoint?: string;
  /** Default 5. */
  readonly retries?: number;
  /** Default 30. */
  readonly stallSeconds?: number;
}
type Environment = Readonly<Record<string, string | undefined>>;

const isOn = (value: string | undefined): boolean => /^(?:1|on|yes|true)$/i.test(value?.trim() ?? '');

/** @throws {ConfigError} hub_endpoint */
function endpointOf(given: string): string {
  let url: URL | null = null;
  try {
    url = new URL(given);
  } catch {
    // said below
  }
  const why =
    url === null || !/^https?:$/.test(url.protocol)
      ? 'is no http(s) address'
      : url.username || url.password
        ? 'holds a user or a password; give the token as HF_TOKEN'
        : url.search || url.hash
          ? 'has a query or a fragment'
          : null;
  if (url === null || why !== null)
    throw new ConfigError(
      'hub_endpoint',
      `the endpoint ${why}; wanted one such as https://huggingface.co (--endpoint, HF_ENDPOINT)`,
    );
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}

function fileText(path: string): string | undefined {
  try {
    return readInputText(path, 'config');
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw e;
  }
}

/** HF_TOKEN, else the file that `hf auth login` writes. @throws {ConfigError} hub_token */
export function tokenOf(env: Environment = process.env): string | null {
  const home =
    env.HF_HOME?.trim() || join(env.XDG_CACHE_HOME?.trim() || join(env.HOME || homedir(), '.cache'), 'huggingface');
  const file = env.HF_TOKEN_PATH?.trim() || join(home, 'token');
  const given = env.HF_TOKEN ?? env.HUGGING_FACE_HUB_TOKEN;
  const token = (given?.trim() || fileText(file)?.trim()) ?? '';
  if (token === '') return null;
  if (!/^[\x21-\x7e]{1,4096}$/.test(token))
    throw new ConfigError(
      'hub_token',
      `the token of ${given?.trim() ? 'HF_TOKEN' : file} has characters that none has (spaces, line ends or letters ` +
        'beyond ASCII); write it again, alone in one line',
    );
  return token;
}

/** @throws {ConfigError} hub_endpoint, hub_token */
export function hubSettings(options: HubOptions = {}, env: Environment = process.env): HubSettings {
  return {
    endpoint: endpointOf(options.endpoint ?? (env.HF_ENDPOINT?.trim() || 'https://huggingface.co')),
    token: tokenOf(env),
    offline: isOn(env.HF_HUB_OFFLINE) || isOn(env.TRANSFORMERS_OFFLINE),
    retries: options.retries ?? 5,
    stallMs: (options.stallSeconds ?? 30) * 1000,
  };
}

const LOOPBACK = /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/;
/** The token goes to the hub alone, and never over a line that anybody may read. */
export function mayHaveToken(settings: HubSettings, url: URL): boolean {
  const hub = new URL(settings.endpoint);
  return url.origin === hub.origin && (url.protocol === 'https:' || LOOPBACK.test(url.hostname));
}
