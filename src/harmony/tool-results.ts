// Which call a tool message answers: by its id, else by its name, else by its place, where only one reading is left.
import { DataError, type ErrorCode } from '../base/errors.js';
import type { ChatMessage } from './chat-row.js';

interface Call {
  readonly id: string | undefined;
  /** functions.get_weather */
  readonly name: string;
  answered: boolean;
}
const NAME = /^[A-Za-z0-9_.-]{1,128}$/;
const fail = (code: ErrorCode, message: string): never => {
  throw new DataError(code, message);
};

/** @throws {DataError} bad_tool_name */
export function functionName(name: string, where: string): string {
  if (!NAME.test(name))
    fail('bad_tool_name', `${where}: the name ${JSON.stringify(name)} is not letters, digits, _ . -`);
  return name.startsWith('functions.') ? name : `functions.${name}`;
}

/** The calls of a conversation, in order. */
export class Calls {
  readonly #names = new Set<string>();
  readonly #byId = new Map<string, Call>();
  /** Not yet answered, since the last message of a user or the last answer. */
  #open: Call[] = [];
  /** Results to come by their place alone. */
  #placed: Call[] = [];
  /**
   * @param nameOf what errors call a message, by its place in the row
   * @param callId what they call the field by which a result names its call
   */
  constructor(
    readonly nameOf: (at: number) => string,
    readonly callId: string,
  ) {}

  /** A user speaks, or an answer is given: what is open stays unanswered. */
  close(): void {
    this.#open = [];
  }

  /** The calls of one assistant message. @throws {DataError} bad_tool_name, tool_call_twice */
  add(message: ChatMessage, where: string): readonly string[] {
    this.#open = this.#open.filter((c) => !c.answered);
    const ids = new Set<string>();
    return (message.tool_calls ?? []).map(({ id: given, function: { name: bare } }) => {
      const id = given ?? undefined;
      const call: Call = { id, name: functionName(bare, where), answered: false };
      if (id !== undefined) {
        if (ids.has(id) || this.#open.some((c) => c.id === id))
          fail('tool_call_twice', `${where}: two calls have the id ${JSON.stringify(id)}; give each its own`);
        ids.add(id);
        this.#byId.set(id, call);
      }
      this.#names.add(call.name);
      this.#open.push(call);
      return call.name;
    });
  }

  /**
   * The names of the functions that a run of tool messages answers.
   * @throws {DataError} unknown_tool_call, tool_call_twice, tool_name_conflict, tool_result_ambiguous, bad_tool_name
   */
  answer(run: readonly ChatMessage[], from: number): readonly string[] {
    const names = run.map((m, i): string | null => {
      const where = this.nameOf(from + i);
      const given = typeof m.name === 'string' ? functionName(m.name, where) : undefined;
      if (typeof m.tool_call_id === 'string') return this.#byIdOf(m.tool_call_id, given, where);
      return given === undefined ? null : this.#byName(given, where);
    });
    const unplaced = names.filter((n) => n === null).length;
    if (unplaced > 0) this.#place(unplaced, this.nameOf(from + names.indexOf(null)));
    this.#open = this.#open.filter((c) => !c.answered);
    return names.map((n) => n ?? (this.#placed.shift() as Call).name);
  }

  #byIdOf(id: string, given: string | undefined, where: string): string {
    const call = this.#byId.get(id);
    const shown = JSON.stringify(id);
    if (!call) {
      // Calls without ids, or a row that begins after its calls.
      if (given !== undefined && this.#open.every((c) => c.id === undefined)) return this.#byName(given, where);
      return fail('unknown_tool_call', `${where}: ${this.callId} ${shown} answers no call before it`);
    }
    if (call.answered) fail('tool_call_twice', `${where}: the call ${shown} has its result already`);
    if (given !== undefined && given !== call.name)
      fail('tool_name_conflict', `${where}: ${this.callId} ${shown} is a call of ${call.name}, name says ${given}`);
    call.answered = true;
    return call.name;
  }

  #byName(name: string, where: string): string {
    const call = this.#open.find((c) => !c.answered && c.name === name);
    if (call) call.answered = true;
    else if (this.#names.size > 0 && !(this.#open.length === 0 && this.#names.has(name)))
      fail('unknown_tool_call', `${where}: name ${name} answers no open call; give tool_call_id`);
    return name;
  }

  #place(count: number, where: string): void {
    const open = this.#open.filter((c) => !c.answered);
    if (open.length < count)
      fail('unknown_tool_call', `${where}: a tool message that answers no call; give tool_call_id or name`);
    if (open.length > count && new Set(open.map((c) => c.name)).size > 1)
      fail(
        'tool_result_ambiguous',
        `${where}: ${count} of ${open.length} calls are answered and nothing says which; give tool_call_id or name`,
      );
    this.#placed = open.slice(0, count);
    for (const c of this.#placed) c.answered = true;
  }
}
