// So much work at once and no more. What finds room begins in the same turn, which for work of microseconds is most of
// its cost.

export type Slots = <T>(work: () => Promise<T>) => Promise<T>;

/** Others wait in the order of their coming. @param count at least 1 */
export function createSlots(count: number): Slots {
  const waiting: (() => void)[] = [];
  let free = Math.max(1, count);
  return async (work) => {
    if (free > 0) free--;
    else await new Promise<void>((go) => waiting.push(go));
    try {
      return await work();
    } finally {
      // The room goes on to who waits longest.
      const next = waiting.shift();
      if (next) next();
      else free++;
    }
  };
}
