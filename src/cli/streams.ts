// stdout and stderr may fail: a full disk, a reader that left. Neither ends work under way nor prints a stack trace.
type Failure = { readonly code: string };

let lost: Failure | undefined;
let keepsOn = false;

/** A command that leaves its work in files goes on without a reader of what it prints. */
export const goOnWithoutReader = (): void => {
  keepsOn = true;
};
/** What stdout failed with, but for a reader that left (EPIPE), which is no failure. */
export const lostOutput = (): string | null => (lost && lost.code !== 'EPIPE' ? lost.code : null);

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'error';

/** Node throws from `write` or emits `error`, by what kind of file it is; after that nothing more is written. */
function guard(stream: NodeJS.WriteStream, onFailure: (code: string) => void): void {
  const write = stream.write.bind(stream) as (...given: unknown[]) => boolean;
  let failed = false;
  const fail = (error: unknown): void => {
    if (failed) return;
    failed = true;
    onFailure(codeOf(error));
  };
  stream.on('error', fail);
  stream.write = ((...given: unknown[]): boolean => {
    const done = given.findLast((x) => typeof x === 'function') as ((error?: Error | null) => void) | undefined;
    if (failed) {
      if (done) process.nextTick(done);
      return true;
    }
    try {
      return write(...given);
    } catch (error) {
      fail(error);
      if (done) process.nextTick(done);
      return true;
    }
  }) as typeof stream.write;
}

/** Once per process, before anything is printed. */
export function guardStreams(): void {
  guard(process.stderr, () => {});
  guard(process.stdout, (code) => {
    lost = { code };
    // A reader that leaves early (`temper … | head`) ends a command quietly that would only go on printing.
    if (code === 'EPIPE' && !keepsOn) process.exit(0);
  });
}
