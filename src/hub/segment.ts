// One segment of a file, or all of one whose server gives no ranges, from where it stands to its end.
import { HubError, IntegrityError, TemperError } from '../base/errors.js';
import type { Job } from './download.js';
import { type Answer, brokeOff, drop, type HubClient, PassingFault, type Told } from './http.js';
import { resolvePath } from './listing.js';

/** The other side gives no ranges of this file, or not the ones that are asked for. */
export class RangesRefused extends Error {}
/** What lies there is no longer what the first bytes came from. */
export class Changed extends Error {}

/** Fewer bytes than this within the time of a stall are as good as none, nor do they earn another try. */
const LEAST_BYTES = 1024;
const EARNS_A_TRY = 64 * 1024;

/** What the hub says of a file beside it, against the listing of the commit. */
function checkTold({ file, options: { commit } }: Job, { commit: served, etag, size }: Told): void {
  const named = JSON.stringify(file.path);
  if (served !== undefined && served !== commit)
    throw new HubError(
      'hub_answer',
      `${named}: asked for of commit ${commit.slice(0, 12)}, given of ${JSON.stringify(served.slice(0, 12))}`,
      { path: file.path, got: served, wanted: commit },
    );
  if (size !== undefined && size !== String(file.size))
    throw new HubError('hub_answer', `${named}: the listing says ${file.size} bytes, its header ${size.slice(0, 20)}`, {
      path: file.path,
      got: size,
      wanted: file.size,
    });
  const digest = etag?.replace(/^W\//, '').replaceAll('"', '');
  if (digest !== undefined && digest.length === file.digest.length && digest !== file.digest)
    throw new IntegrityError(
      'hub_digest',
      `${named}: the listing gives the digest ${file.digest.slice(0, 12)}…, its header ${digest.slice(0, 12)}…`,
      { path: file.path, got: digest, wanted: file.digest },
    );
}

/** The bytes [start, end) of a 206, or all of a 200. @throws RangesRefused · PassingFault · what refusal says */
async function checkAnswer(client: HubClient, job: Job, answer: Answer, start: number, end: number): Promise<void> {
  const { size, path } = job.file;
  const { status, header, url } = answer;
  const ranged = end - start < size;
  const fault = (what: string): PassingFault => new PassingFault(`${url.host} ${what}`, 0, status);
  if (ranged && (status === 200 || status === 416)) throw new RangesRefused();
  if (status !== 200 && status !== 206) {
    // A signed address holds for a while only; the hub gives a new one.
    const signed = job.location !== null;
    job.location = null;
    if (signed && (status === 401 || status === 403 || status === 404 || status === 410)) {
      drop(answer.body);
      throw fault(`answers ${status}`);
    }
    throw await client.refusal(JSON.stringify(path), answer);
  }
  if (/[^\s,]/.test((header('content-encoding') ?? '').replace('identity', '')))
    throw fault('sends it in an encoding that nobody asked for');
  if (status === 206) {
    const [, from, to, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(header('content-range')?.trim() ?? '') ?? [];
    if (!ranged || Number(from) !== start || Number(to) !== end - 1 || (total !== '*' && Number(total) !== size))
      throw ranged && total !== undefined && total !== '*' && Number(total) !== size
        ? fault(`says that ${JSON.stringify(path)} has ${total} bytes, the listing ${size}`)
        : fault('gives another range than the one asked for');
  }
  const length = header('content-length');
  if (length !== undefined && Number(length) !== end - start)
    throw fault(`announces ${length.slice(0, 20)} bytes of ${JSON.stringify(path)}, wanted ${end - start}`);
  const etag = header('etag');
  if (!etag?.startsWith('"')) return;
  if (job.etag?.of === url.href && job.etag.tag !== etag) throw new Changed();
  job.etag = { of: url.href, tag: etag };
}

/** @returns bytes that came, `wanted` at most */
async function take(
  job: Job,
  segment: number,
  answer: Answer,
  wanted: number,
  stallMs: number,
  signal: AbortSignal,
): Promise<number> {
  let [taken, since, window] = [0, performance.now(), 0];
  for await (const piece of answer.body as AsyncIterable<Buffer>) {
    signal.throwIfAborted();
    const bytes = piece.length > wanted - taken ? piece.subarray(0, wanted - taken) : piece;
    job.part.append(segment, bytes);
    taken += bytes.length;
    job.options.onBytes(bytes.length);
    job.moved();
    // What is longer than promised is not read on.
    if (taken === wanted) return taken;
    window += bytes.length;
    const now = performance.now();
    if (now - since < stallMs) continue;
    if (window < LEAST_BYTES) throw new PassingFault(`${answer.url.host} hardly sends anything`);
    [since, window] = [now, 0];
  }
  return taken;
}

/**
 * @param signal ends it, and is looked at before every byte that is kept
 * @throws {RangesRefused} · {TemperError} · the signal's reason
 */
export function fetchPiece(client: HubClient, job: Job, segment: number, signal: AbortSignal): Promise<void> {
  const { file, options, part } = job;
  const end = job.inOnePiece ? file.size : segment * part.segmentBytes + part.lengthOf(segment);
  const once = async (progressed: () => void): Promise<void> => {
    // Without ranges every try begins with nothing.
    if (job.inOnePiece && part.received > 0) job.rewind();
    const before = part.doneOf(segment);
    const start = job.inOnePiece ? 0 : segment * part.segmentBytes + before;
    if (start === end) return;
    const from = job.location ?? client.urlOf(resolvePath(options.repo, options.commit, file.path));
    const range = end - start < file.size ? { range: `bytes=${start}-${end - 1}` } : {};
    const answer = await client.get(from, range, signal, (told) => checkTold(job, told));
    let taken = 0;
    try {
      await checkAnswer(client, job, answer, start, end);
      job.location = answer.url;
      taken = await take(job, segment, answer, end - start, client.settings.stallMs, signal);
    } catch (e) {
      signal.throwIfAborted();
      const own = e instanceof TemperError || [PassingFault, RangesRefused, Changed].some((Kind) => e instanceof Kind);
      throw own ? e : brokeOff(answer.url, e);
    } finally {
      drop(answer.body);
      // Only a try that brought something earns another one.
      const brought = job.inOnePiece ? 0 : part.doneOf(segment) - before;
      if (brought >= Math.min(EARNS_A_TRY, end - start)) progressed();
    }
    if (taken < end - start)
      throw new PassingFault(`${answer.url.host} broke off after ${taken} of ${end - start} bytes`);
  };
  return client.tried(JSON.stringify(file.path), once, signal);
}
