// What is doubtful in rows and no error: counted by row, shown by `data check` and at the start of a training.
import type { ChatNote } from '../harmony/chat-row.js';

export type Note =
  | ChatNote
  | 'completion_as_text'
  | 'json_text'
  | 'markup_as_text'
  | 'pair_prompts_differ'
  | 'replacement_character';
/** After "N rows". */
export const NOTES: Readonly<Record<Note, string>> = {
  annotations_unused: 'have annotations, which are not used',
  arguments_not_json: 'have arguments of calls that are no JSON object, which are trained as they stand',
  blank_reasoning: 'have blank reasoning, which is left out',
  completion_as_text: 'are continued as plain text, with no conversation around them; messages would have one',
  json_text: 'have conversations as JSON text, which are read as the lists they say',
  markup_as_text: 'hold <|…|>, [INST] or reasoning markup as plain text',
  name_unused: 'have messages with a name that is not a tool’s; it is not used',
  null_argument: 'have null members in tools or in arguments given as objects, which are left out',
  pair_prompts_differ: 'have pairs of tokens that differ before the first token of weight above 0: not one prompt',
  replacement_character: 'hold U+FFFD, which stands where bytes were lost',
  tool_name_builtin: 'declare a function python or browser; the model knows built-in tools of that name',
  tool_schema_any: 'have a tool schema that says more of a type than the model is told ($ref, anyOf, const, …): any',
  tool_schema_rounded: 'have a tool schema with numbers or an order of keys that JavaScript does not keep',
};

/** How many rows a note is about, and the first of them. */
export interface NoteCount {
  readonly rows: number;
  readonly line: number;
}
export type Notes = Readonly<Partial<Record<Note, NoteCount>>>;

/** What is worth saying of a file that was read: examples too long, doubts; one line each. */
export const noticesOf = (file: {
  readonly dropped: number;
  readonly truncated: number;
  readonly notes: Notes;
}): string[] => [
  ...(file.dropped ? [`${file.dropped} examples are longer than maxTokens and dropped`] : []),
  ...(file.truncated ? [`${file.truncated} examples are longer than maxTokens and cut off there`] : []),
  ...(Object.keys(NOTES) as Note[]).flatMap((n) => {
    const count = file.notes[n];
    return count ? [`${count.rows} rows ${NOTES[n]} (the first is ${count.line})`] : [];
  }),
];
