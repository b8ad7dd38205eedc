// A stream as another one, without a generator of its own between: that would cost several promises for each thing that
// comes, and a token passes many such places.

/**
 * @param of   what is made of each thing
 * @param over told once, of a stream that was begun: it ended, failed, or its reader has left
 */
export function mapped<T, U>(
  source: AsyncIterable<T>,
  of: (value: T) => U,
  over: () => void = () => {},
): AsyncIterableIterator<U, void, void> {
  const from = source[Symbol.asyncIterator]() as AsyncIterator<T, void, void>;
  let state: 'new' | 'open' | 'over' = 'new';
  const end = (): void => {
    const begun = state === 'open';
    state = 'over';
    if (begun) over();
  };
  const failed = (error: unknown): never => {
    end();
    throw error;
  };
  const took = (got: IteratorResult<T, void>): IteratorResult<U, void> => {
    if (got.done) {
      end();
      return got;
    }
    try {
      return { done: false, value: of(got.value) };
    } catch (error) {
      void from.return?.().catch(() => {});
      return failed(error);
    }
  };
  return {
    next() {
      if (state === 'new') state = 'open';
      return from.next().then(took, failed);
    },
    async return() {
      try {
        await from.return?.();
      } finally {
        end();
      }
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
