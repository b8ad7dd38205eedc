// What formats that say the same as `chat` in other words share: their rows become chat rows, and complaints name the
// row's own fields.
import { DataError } from '../../base/errors.js';
import type { ChatRow } from '../../harmony/chat.js';
import type { Format, FormatContext, RowExample, RowPrompt } from '../format.js';
import { chat } from './chat.js';

export interface AsChat {
  readonly row: ChatRow;
  /** What each message is called in the row that was given, e.g. `conversations[2]`. */
  readonly names: readonly string[];
}

function renamed(e: unknown, names: readonly string[]): unknown {
  if (!(e instanceof DataError)) return e;
  const message = e.message.replaceAll(/\bmessages\[(\d+)\]/g, (all, i: string) => names[Number(i)] ?? all);
  return new DataError(e.code, message, e.details, { cause: e });
}

/** Of what a format says apart from how its rows become chat rows. */
export function viaChat<Row>(
  format: Pick<Format<Row>, 'name' | 'row' | 'recognise'>,
  asChat: (row: Row) => AsChat,
): Format<Row> {
  return {
    ...format,
    *toExamples(row: Row, context: FormatContext): Generator<RowExample> {
      const { row: chatRow, names } = asChat(row);
      try {
        yield* chat.toExamples(chatRow, context);
      } catch (e) {
        throw renamed(e, names);
      }
    },
    check(row: Row, context: FormatContext): void {
      const { row: chatRow, names } = asChat(row);
      try {
        chat.check?.(chatRow, context);
      } catch (e) {
        throw renamed(e, names);
      }
    },
    toChat: (row: Row): ChatRow => asChat(row).row,
    toPrompts: (row: Row): readonly RowPrompt[] => chat.toPrompts?.(asChat(row).row) ?? [],
  };
}
