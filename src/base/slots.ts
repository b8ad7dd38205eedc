// So much work at once and no more. What finds room begins in the same turn, which for work of microseconds is most of
// its cost.

export type Slots = <T>(work: () => Promise<T>) => Promise<T>;

/** Others wait in the order of their coming. @param count at least 1 */
export function createSlots(count: number): Slots {
  const waiting: (() => void)[] = [];
  let free = Math.max(1, count);
  const leave = (): void => {
    // The room goes on to who waits longest.
    const next = waiting.shift();
    if (next) next();
    else free++;
  };
  // No function that waits by itself: its frame costs as much as all the rest.
  const inside = <T>(work: () => Promise<T>): Promise<T> => {
    let done: Promise<T>;
    try {
      done = work();
    } catch (error) {
      done = Promise.reject(error);
    }
    return done.then(
      (value) => {
        leave();
        return value;
      },
      (error: unknown) => {
        leave();
        throw error;
      },
    );
  };
  return (work) => {
    if (free === 0) return new Promise<void>((go) => waiting.push(go)).then(() => inside(work));
    free--;
    return inside(work);
  };
}
