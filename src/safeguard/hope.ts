// When it is of no use to go on asking a judge: a wrong key must not cost a thousand calls.

/** Failures in a row, of a kind that no other call fares better, from the first call on. */
export const HOPELESS_CALLS = 8;
/** The same after the judge answered once: a key that ran out, a server that went away. */
const LOST_CALLS = 2 * HOPELESS_CALLS;

export interface Hope {
  /** @param hopeless the failure in words, where no other call can fare better; null: it may */
  note(answered: boolean, hopeless: string | null): void;
  /** Why it is of no use, one line; null: it may be. */
  lost(): string | null;
}

export function createHope(): Hope {
  let [answers, failures, detail] = [0, 0, ''];
  return {
    note(answered, hopeless) {
      if (answered) {
        answers++;
        failures = 0;
        return;
      }
      if (hopeless === null) return;
      // Equal ones: another failure may be another matter.
      failures = answers > 0 && hopeless !== detail ? 1 : failures + 1;
      detail = hopeless;
    },
    lost: () => (failures >= (answers === 0 ? HOPELESS_CALLS : LOST_CALLS) ? detail : null),
  };
}
