// Files of a commit, fetched side by side in ranges, each checked against the digest that the listing gives before
// anybody may use it. What is there of a file is kept, whatever ends the pull.
import { setMaxListeners } from 'node:events';
import { type Channel, openChannel } from '../base/channel.js';
import { HubError, IntegrityError, TemperError } from '../base/errors.js';
import { hashOf } from './file-digest.js';
import type { HashCalls } from './hash-worker.js';
import type { HubClient } from './http.js';
import type { HubFile } from './listing.js';
import { Part } from './part.js';
import type { Repo } from './reference.js';
import { Changed, fetchPiece, RangesRefused } from './segment.js';

export interface DownloadOptions {
  readonly repo: Repo;
  readonly commit: string;
  /** Folder of the parts. */
  readonly folder: string;
  /** Requests at once. */
  readonly connections: number;
  /** What one of them asks for at most. */
  readonly segmentBytes: number;
  readonly signal?: AbortSignal;
  /** Bytes that have come since the last call; less than 0: so many turned out to be of no use. */
  readonly onBytes: (bytes: number) => void;
  readonly onNotice: (notice: string) => void;
}
export interface Missing {
  readonly file: HubFile;
  readonly error: unknown;
}
/** Files that fail one after the other show that it is not the files. */
const MOST_FAILED = 3;

/** One file on its way. */
export class Job {
  readonly part: Part;
  /** Ends its requests: the file failed, or is fetched anew. */
  stop = new AbortController();
  /** Where its bytes are, once the hub has said so. */
  location: URL | null = null;
  /** Of what lies there: a change of it is another file. */
  etag: { readonly of: string; readonly tag: string } | null = null;
  /** The other side gives no ranges: all of it in one piece, from the beginning each time. */
  inOnePiece = false;
  error: unknown;
  done = false;
  changes = 0;
  #prefix = new BigInt64Array(new SharedArrayBuffer(8));
  #digest: Promise<string> | null = null;
  #hashing = new AbortController();
  #checking = false;
  #fetchedAnew = false;

  constructor(
    readonly file: HubFile,
    readonly options: DownloadOptions,
    readonly hasher: () => Promise<Channel<HashCalls, null>>,
  ) {
    this.part = new Part(options.folder, file, options.segmentBytes);
    setMaxListeners(0, this.stop.signal);
  }

  /** Hashing begins with the first bytes where a file has several segments. */
  follow(): void {
    if (this.part.segments < 2) return;
    const { path } = this.part,
      { size, algorithm } = this.file;
    const request = { path, size, algorithm, prefix: this.#prefix.buffer as SharedArrayBuffer };
    const { signal } = this.#hashing;
    this.moved();
    this.#digest = this.hasher().then((channel) => channel.call('follow', request, { signal }));
    this.#digest.catch(() => {}); // told where it is waited for
  }
  moved(): void {
    Atomics.store(this.#prefix, 0, BigInt(this.part.prefix));
  }
  /** Forgets what came. */
  rewind(): void {
    this.#hashing.abort(new DOMException('begun again', 'AbortError'));
    this.#hashing = new AbortController();
    this.options.onBytes(-this.part.received);
    this.part.restart();
    this.#prefix = new BigInt64Array(new SharedArrayBuffer(8));
    this.follow();
  }
  /** Begins again with nothing; requests under way bring nothing any more. */
  restart(inOnePiece: boolean): void {
    this.stop.abort(new DOMException('fetched anew', 'AbortError'));
    this.stop = new AbortController();
    setMaxListeners(0, this.stop.signal);
    this.inOnePiece = inOnePiece;
    this.location = null;
    this.etag = null;
    this.#checking = false;
    this.rewind();
  }
  fail(error: unknown): void {
    this.error ??= error;
    this.end(error);
  }
  end(reason: unknown): void {
    this.stop.abort(reason);
    this.#hashing.abort(reason);
  }

  async #digestNow(): Promise<string> {
    if (this.#digest) return this.#digest;
    const hash = hashOf(this.file.algorithm, this.file.size);
    const piece = Buffer.allocUnsafe(1 << 20);
    for (let at = 0; at < this.file.size; ) {
      const n = this.part.read(piece, at);
      if (n === 0) break;
      hash.update(piece.subarray(0, n));
      at += n;
    }
    return hash.digest('hex');
  }
  /**
   * Of a file that is whole. @returns false: it is not what was promised and is fetched again, or another call looks
   * @throws {IntegrityError} hub_digest
   */
  async check(): Promise<boolean> {
    if (this.#checking) return false;
    this.#checking = true;
    const got = await this.#digestNow();
    const { path, digest, algorithm } = this.file;
    if (got === digest) {
      await this.part.flush();
      this.part.close();
      this.done = true;
      return true;
    }
    if (!this.#fetchedAnew) {
      this.#fetchedAnew = true;
      this.options.onNotice(`${JSON.stringify(path)}: came with other bytes than promised; fetched once more`);
      this.restart(this.inOnePiece);
      return false;
    }
    this.options.onBytes(-this.part.received);
    this.part.remove();
    throw new IntegrityError(
      'hub_digest',
      `${JSON.stringify(path)}: its ${algorithm} is ${got.slice(0, 12)}…, the hub says ${digest.slice(0, 12)}…, ` +
        'twice; what came was thrown away',
      { path, got, wanted: digest },
    );
  }
}

interface Task {
  readonly job: Job;
  readonly segment: number;
  /** Tasks of before a restart are of no use. */
  readonly stop: AbortController;
}
const tasksOf = (job: Job): Task[] =>
  Array.from({ length: job.inOnePiece ? Math.min(1, job.part.segments) : job.part.segments }, (_, segment) => ({
    job,
    segment,
    stop: job.stop,
  })).filter(({ segment }) => job.part.doneOf(segment) < job.part.lengthOf(segment));

/**
 * Fetches files, whose digests differ from one another, into their parts.
 * @returns those that could not be had; all others are whole and checked
 * @throws the signal's reason
 */
export async function download(
  client: HubClient,
  files: readonly HubFile[],
  options: DownloadOptions,
): Promise<readonly Missing[]> {
  const { signal, connections } = options;
  let channel: Promise<Channel<HashCalls, null>> | null = null;
  const hasher = (): Promise<Channel<HashCalls, null>> =>
    (channel ??= openChannel<HashCalls, null>('hub/hash-worker.js', null, { name: 'hub-hash' }));
  const waiting = [...files];
  const open = new Set<Job>();
  const missing: Missing[] = [];
  const tasks: Task[] = [];

  const close = (job: Job): void => {
    open.delete(job);
    job.part.close();
    if (!job.done) missing.push({ file: job.file, error: job.error });
  };
  const settle = async (job: Job): Promise<void> => {
    try {
      if (!(await job.check()) && !job.part.whole) tasks.unshift(...tasksOf(job));
    } catch (e) {
      signal?.throwIfAborted();
      job.fail(e);
    }
  };
  const work = async (task: Task): Promise<void> => {
    const { job } = task;
    try {
      await fetchPiece(client, job, task.segment, task.stop.signal);
      job.moved();
      if (job.part.whole && task.stop === job.stop) await settle(job);
    } catch (e) {
      if (signal?.aborted) throw signal.reason;
      if (task.stop !== job.stop) return; // begun again meanwhile
      if (e instanceof RangesRefused || (e instanceof Changed && ++job.changes < 3)) {
        job.restart(e instanceof RangesRefused);
        tasks.unshift(...tasksOf(job));
      } else if (e instanceof Changed)
        job.fail(
          new HubError('hub_answer', `${JSON.stringify(job.file.path)}: changes while it is fetched`, {
            path: job.file.path,
          }),
        );
      else job.fail(e);
    }
  };
  /** The next thing to do; a new file is begun when those under way have no more segments to give. */
  const next = async (): Promise<Task | null> => {
    for (;;) {
      signal?.throwIfAborted();
      const task = tasks.shift();
      if (task) {
        if (task.stop === task.job.stop && !task.job.stop.signal.aborted) return task;
        continue;
      }
      const file = waiting.shift();
      if (!file || missing.length >= MOST_FAILED) return null;
      const job = new Job(file, options, hasher);
      open.add(job);
      options.onBytes(job.part.received);
      job.follow();
      if (job.part.whole) await settle(job);
      tasks.push(...tasksOf(job));
      if (job.done || job.error !== undefined) close(job);
    }
  };
  const run = async (): Promise<void> => {
    for (let task = await next(); task; task = await next()) {
      await work(task);
      const { job } = task;
      if (open.has(job) && (job.done || job.error !== undefined)) close(job);
    }
  };
  const onAbort = (): void => {
    for (const job of open) job.end(signal?.reason);
  };
  signal?.addEventListener('abort', onAbort);
  try {
    const ends = await Promise.allSettled(Array.from({ length: Math.max(1, connections) }, run));
    signal?.throwIfAborted();
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    for (const job of open) {
      job.end(new DOMException('ended', 'AbortError'));
      job.part.close();
    }
    const opened = channel as Promise<Channel<HashCalls, null>> | null;
    await opened?.then((c) => c.close()).catch(() => {});
  }
  return [...missing, ...waiting.map((file) => ({ file, error: undefined }))];
}

/** The error of a pull of which files are missing: the gravest, and what is missing. */
export function missingError(what: string, missing: readonly Missing[], of: number): TemperError {
  const errors = missing.map((m) => m.error).filter((e): e is TemperError => e instanceof TemperError);
  const other = missing.find((m) => m.error !== undefined && !(m.error instanceof TemperError));
  if (other) throw other.error;
  const gravest = [40, 2, 30].map((code) => errors.find((e) => e.exitCode === code)).find((e) => e !== undefined);
  const names = missing.slice(0, 8).map((m) => JSON.stringify(m.file.path));
  const list = `${names.join(', ')}${missing.length > names.length ? ', …' : ''}`;
  const message =
    `${what}: ${missing.length} of ${of} files ${missing.length === 1 ? 'is' : 'are'} missing: ${list}` +
    `${gravest ? `; ${gravest.message}` : ''}`;
  const details = { ...gravest?.details, missing: missing.map((m) => m.file.path) };
  if (!gravest) return new HubError('hub_unreachable', message, details);
  const Kind = gravest.constructor as new (
    code: TemperError['code'],
    message: string,
    details: Readonly<Record<string, unknown>>,
  ) => TemperError;
  return new Kind(gravest.code, message, details);
}
