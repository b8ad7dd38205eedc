// Who takes part in the next step: the whole policy of serving. Pure: it knows neither model nor cache.
//
// A step gives every running stream its next token, and beside them runs pieces of prompts worth at most `tokens`, for
// as long as `readingMs` says where a pass can stop. So what a stream waits for between two of its own tokens is
// bounded, however long the prompts are and however many wait. First come, first served: a job begins when there is
// room and nobody before it waits, and prompts are read in the order of arrival. The prompt that is being read gets a
// piece in each step, so every prompt ends.

export interface Job {
  /** All of its prompt is read: it takes a token in each step. */
  readonly decoding: boolean;
  /** Whoever reads it wants no more for now. */
  readonly held: boolean;
  /** Tokens of the next piece of its prompt, at most a step's budget; 0 when there is none. Asked after each piece. */
  piece(): number;
}

/**
 * Takes the jobs that begin now from the front of `waiting`.
 * @param begin gives a job its room in the cache, or says that there is none: then all after it wait too
 */
export function admit<J>(waiting: J[], begin: (job: J) => boolean): readonly J[] {
  const first = waiting.findIndex((job) => !begin(job));
  return waiting.splice(0, first < 0 ? waiting.length : first);
}

/**
 * Those that take a token in this step: all whose prompt was read before it began and that are not held. None is held
 * while others wait for room, which it would keep from them; one of them may be what its reader waits for.
 */
export const streams = <J extends Job>(running: readonly J[], waiting: readonly J[]): readonly J[] =>
  running.filter((job) => job.decoding && (!job.held || waiting.length > 0));

/** Of a decode step's time: what reading takes beside it for each prompt, and for all of them. */
const PROMPT_SHARE = 0.5,
  MOST_SHARE = 1.5;
/**
 * How long prompts are read beside streams in a step. A stream's tokens are then 1.5 decode steps apart while one
 * prompt is read, 2.5 at the most; the prompt takes three times as long as alone, less where several share the wait.
 * @param decodeMs what the streams' tokens took · @param waiting prompts that are not read to the end
 */
export const readingMs = (decodeMs: number, waiting: number): number =>
  decodeMs * Math.min(MOST_SHARE, PROMPT_SHARE * waiting);

/**
 * Whose prompts are read in this step, those together that may be: the caller runs a piece of each job of a group
 * before it asks for the next.
 * @param running in the order of arrival · @param tokens most prompt tokens of a step
 * @param joins whether a job's piece, the last of its prompt, may be read together with those of a group
 */
export function* prompts<J extends Job>(
  running: readonly J[],
  tokens: number,
  joins: (job: J, group: readonly J[]) => boolean = () => false,
): Generator<readonly J[]> {
  let left = tokens,
    group: J[] = [];
  for (const job of running)
    for (let n = job.piece(); n > 0; n = job.piece()) {
      if (group.length > 0 && (n > left || !joins(job, group))) {
        yield group;
        group = [];
        // What others keep of theirs it may go on from now.
        n = job.piece();
      }
      if (n > left) return;
      left -= n;
      if (joins(job, group)) {
        group.push(job);
        break;
      }
      yield [job];
    }
  if (group.length > 0) yield group;
}

/** Steps that prompts wait for company, at most: of one that takes long they lose little. */
const MOST_WAITED = 4;

/**
 * Holds ends of prompts back that could be read together with those of others. A pass reads the model's weights however
 * few tokens it has; and answers of one pass end together, so that their slots' next prompts come together too.
 */
export class Company {
  #waited = 0;

  /**
   * Whether they wait in this step.
   * @param ends tokens of each that stands ready · @param most tokens of a pass
   * @param comes more of them will: others wait for the slots of streams that are running now
   */
  isAwaited(ends: readonly number[], most: number, comes: boolean): boolean {
    const enough = ends.reduce((sum, n) => sum + n, 0) >= most;
    if (ends.length === 0) return false;
    this.#waited = comes && !enough && this.#waited < MOST_WAITED ? this.#waited + 1 : 0;
    return this.#waited > 0;
  }
}
