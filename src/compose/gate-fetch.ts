// `temper gate fetch`: a public set, over the network or of a copy that is at hand.
import { EnvHttpProxyAgent, fetch } from 'undici';
import { ConfigError, HubError } from '../base/errors.js';
import { inputPieces } from '../base/inputs.js';
import { type FetchedSet, fetchSet } from '../gate/fetch/fetch-set.js';
import type { PublicSet } from '../gate/fetch/sets.js';
import { faultName } from '../hub/http.js';
import { readCsv } from '../safeguard/batch/csv.js';

export interface FetchSetOptions {
  readonly set: string;
  readonly out: string;
  /** A copy of the set's file; absent: the network. */
  readonly from?: string;
  readonly anyDigest?: boolean;
  readonly signal: AbortSignal;
}
/** None of the sets is near it. */
const MOST_BYTES = 64 * 2 ** 20;
const TIMEOUT_MS = 60_000;

async function download({ url, name, pinned, copy }: PublicSet, signal: AbortSignal): Promise<Buffer> {
  if (pinned === null) throw new ConfigError('bad_option', `gate fetch ${name}: is not fetched by itself; ${copy}`);
  const stop = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  const dispatcher = new EnvHttpProxyAgent();
  try {
    const answer = await fetch(url, { signal: stop, dispatcher });
    if (!answer.ok)
      throw new HubError(
        'hub_answer',
        `${url}: status ${answer.status}; fetch ${name} by hand and give it with --from FILE`,
        {
          url,
          status: answer.status,
        },
      );
    const pieces: Buffer[] = [];
    let bytes = 0;
    for await (const piece of answer.body ?? []) {
      bytes += piece.length;
      if (bytes > MOST_BYTES) throw new HubError('hub_answer', `${url}: more than ${MOST_BYTES} bytes`, { url });
      pieces.push(Buffer.from(piece));
    }
    return Buffer.concat(pieces);
  } catch (e) {
    signal.throwIfAborted();
    if (e instanceof HubError) throw e;
    throw new HubError(
      'hub_unreachable',
      `${url}: cannot be reached (${faultName(e)}); fetch ${name} by hand and give it with --from FILE`,
      { url },
      { cause: e },
    );
  } finally {
    await dispatcher.destroy();
  }
}
async function copyOf(file: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of inputPieces(file)) pieces.push(piece);
  return Buffer.concat(pieces);
}

/**
 * @throws {HubError} hub_unreachable, hub_answer · {ConfigError} bad_option: the set is only to be had as a copy · as
 * fetchSet · the signal's reason
 */
export const fetchPublicSet = ({ set, out, from, anyDigest, signal }: FetchSetOptions): Promise<FetchedSet> =>
  fetchSet({
    ...{ set, out, csv: readCsv },
    bytes: (of) => (from === undefined ? download(of, signal) : copyOf(from)),
    ...(anyDigest === undefined ? {} : { anyDigest }),
  });
