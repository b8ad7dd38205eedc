// The file of verdicts under way: lines are gathered while a write runs, so that a verdict costs no write of its own,
// and written within a turn of the event loop, so that a process that is killed has lost next to nothing.
import type { Hash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { asWriteError } from '../../base/system-error.js';

/** So much is gathered before the next write begins whatever happens, bytes. */
const GATHER = 1 << 18;
/** Whoever adds waits above this. */
const MOST = 1 << 22;

export class VerdictFile {
  /** What is gathered: pieces that are full, and the one under way. */
  readonly #full: Buffer[] = [];
  #open: Buffer = Buffer.allocUnsafeSlow(GATHER);
  #used = 0;
  /** Bytes gathered. */
  #size = 0;
  /** Pieces that were written: memory is used again, as a line is cheaper than the pages that it would lie on. */
  readonly #spare: Buffer[] = [];
  #writing: Promise<void> | null = null;
  #due = false;
  #failed: unknown;

  private constructor(
    readonly path: string,
    /** What the user calls the file that this one becomes. */
    readonly name: string,
    readonly handle: FileHandle,
    /** Gets every byte. */
    readonly hash: Hash | null,
  ) {}
  /** @throws {ConfigError} output_unwritable */
  static async create(path: string, name: string, hash: Hash | null = null): Promise<VerdictFile> {
    try {
      return new VerdictFile(path, name, await open(path, 'wx'), hash);
    } catch (cause) {
      throw asWriteError(cause, name);
    }
  }

  /** Takes a line without its end. @throws what a write before failed with */
  add(line: string): void {
    if (this.#failed !== undefined) throw this.#failed;
    // A UTF-16 unit has three bytes at most.
    const most = 3 * line.length + 1;
    if (this.#open.length - this.#used < most) this.#turn(most);
    const bytes = this.#open.write(line, this.#used) + 1;
    this.#used += bytes;
    this.#size += bytes;
    this.#open[this.#used - 1] = 10;
    if (this.#writing) return;
    if (this.#full.length > 0) this.#write();
    else if (!this.#due) {
      this.#due = true;
      setImmediate(() => {
        this.#due = false;
        if (!this.#writing && this.#size > 0) this.#write();
      });
    }
  }
  /** To be awaited before more is added; null: there is room. */
  get room(): Promise<void> | null {
    return this.#size < MOST ? null : this.#writing;
  }

  /** Another piece is under way, with room for so many bytes. */
  #turn(most: number): void {
    if (this.#used > 0) this.#full.push(this.#open.subarray(0, this.#used));
    this.#open = (most <= GATHER ? this.#spare.pop() : undefined) ?? Buffer.allocUnsafeSlow(Math.max(GATHER, most));
    this.#used = 0;
  }
  #write(): void {
    if (this.#full.length === 0) this.#turn(0);
    const bytes = this.#full.shift() as Buffer;
    this.#size -= bytes.length;
    this.hash?.update(bytes);
    this.#writing = this.#all(bytes).then(
      () => {
        this.#writing = null;
        if (bytes.buffer.byteLength === GATHER) this.#spare.push(Buffer.from(bytes.buffer));
        if (this.#size > 0 && this.#failed === undefined) this.#write();
      },
      (cause: unknown) => {
        this.#writing = null;
        this.#failed ??= asWriteError(cause, this.name, true);
      },
    );
  }
  async #all(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; ) at += (await this.handle.write(bytes, at)).bytesWritten;
  }

  /** All that was added is with the system. @throws {CheckpointError} disk_full · {ConfigError} output_unwritable */
  async flush(): Promise<void> {
    while (this.#failed === undefined && (this.#writing || this.#size > 0)) {
      if (!this.#writing) this.#write();
      await this.#writing;
    }
    if (this.#failed !== undefined) throw this.#failed;
  }
  /** All of it is on the disk, and the file closed. */
  async finish(): Promise<void> {
    await this.flush();
    try {
      await this.handle.sync();
      await this.handle.close();
    } catch (cause) {
      throw asWriteError(cause, this.name, true);
    }
  }
  /** Lets go of it, whatever went wrong. */
  async close(): Promise<void> {
    await this.#writing;
    await this.handle.close().catch(() => {});
  }
}
