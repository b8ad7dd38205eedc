// One turn of the assistant, for whoever shows it: streamed as it is sampled, or held back until it is judged. What it
// means for exit codes, for JSON and for the conversation is decided here.
import { toConversation } from '../harmony/chat.js';
import type { Effort, Message } from '../harmony/types.js';
import type { Engine } from '../infer/engine.js';
import type { DoneEvent, GenerateRequest } from '../infer/protocol.js';
import { channelLabel } from '../safeguard/contract.js';
import { HeldResponse, type ReleasedChannel } from '../safeguard/release.js';
import type { Screen, ScreenResult } from '../safeguard/screen.js';
import { transcript } from '../safeguard/transcript.js';
import type { UnjudgedCause, Verdict } from '../safeguard/types.js';
import type { VerdictEntry, VerdictSink } from '../safeguard/verdict-sink.js';

export interface Turn {
  readonly done: DoneEvent;
  /** null: no policy was given, everything was shown as it came. */
  readonly screened: {
    readonly channels: readonly ReleasedChannel[];
    readonly result: ScreenResult;
    /** Of the verdicts in a log; absent: there is none. */
    readonly receipt?: string;
  } | null;
}
/** Where the verdicts over a turn go on record before anything of it is shown. */
export interface OnRecord {
  readonly sink: VerdictSink;
  readonly subject: NonNullable<VerdictEntry['subject']>;
}
/** Where text goes. Called with a piece of a channel; a new channel begins whenever the name changes. */
export type Show = (channel: string, text: string, withheld: boolean) => void;

/**
 * Runs one turn. With a screen, `show` is called only after the verdicts, once per channel, with released text or a
 * notice.
 * @throws {ScreeningError} log_failed: its verdicts are not on record, and nothing was shown
 */
export async function runTurn(
  engine: Engine,
  request: GenerateRequest,
  screen: Screen | null,
  show: Show,
  signal: AbortSignal,
  onRecord?: OnRecord,
): Promise<Turn> {
  let done: DoneEvent | undefined;
  let last: { readonly message: number; readonly channel: string } | null = null;
  for await (const event of engine.generate(request, signal)) {
    if (event.kind === 'done') done = event;
    else if (!screen) {
      // As `transcript` has it: each message from a line of its own, a call headed by its recipient.
      const { message, channel, recipient, text } = event;
      const begins = message !== last?.message || channel !== last.channel;
      const apart = begins && channel === last?.channel ? '\n' : '';
      show(channel, begins && recipient !== null ? `${apart}to=${recipient} ${text}` : apart + text, false);
      last = { message, channel };
    }
  }
  if (!done) throw new Error('the engine ended a turn without its last event');
  if (!screen) return { done, screened: null };
  const held = new HeldResponse(screen);
  for (const [channel, text] of Object.entries(transcript(done.messages))) held.push(channel, text);
  const screened = await held.release(signal);
  signal.throwIfAborted();
  const receipt = await recorded(onRecord, screened.result);
  for (const c of screened.channels) show(c.channel, c.text, c.withheld);
  return { done, screened: { ...screened, ...(receipt === null ? {} : { receipt }) } };
}

async function recorded(onRecord: OnRecord | undefined, { outcome, verdicts }: ScreenResult): Promise<string | null> {
  if (!onRecord) return null;
  const action = outcome === 'allow' ? 'release' : 'withhold';
  return (await onRecord.sink.append({ verdicts, action, subject: onRecord.subject })).receipt;
}

/** The model answered: a final message that says something, or a call of a tool that it named. */
export const hasAnswer = ({ done }: Turn): boolean =>
  done.messages.some((m) => m.role === 'assistant' && m.channel === 'final' && m.content.trim() !== '') ||
  (done.finish === 'call' && done.messages.some((m) => m.role === 'assistant' && m.recipient !== undefined));

/** Why there is no answer, as a line for people; null if there is one. It repeats nothing that the model wrote. */
export function noAnswer(turn: Turn): string | null {
  if (hasAnswer(turn)) return null;
  const { finish, messages } = turn.done;
  const channels = Object.keys(transcript(messages));
  const wrote = channels.length === 0 ? 'nothing at all' : `only on ${channels.join(', ')}`;
  return finish === 'length'
    ? `no answer: cut off before a final message (it wrote ${wrote}); raise --max-tokens or --context`
    : `no answer: the model ended its turn without a final message (it wrote ${wrote})`;
}

/** 10 if something is blocked, 30 if something is unjudged, 20 if there is no answer, else 0. */
export function turnExitCode(turn: Turn): 0 | 10 | 20 | 30 {
  if (wasWithheld(turn)) return turn.screened?.result.outcome === 'block' ? 10 : 30;
  return hasAnswer(turn) ? 0 : 20;
}

/** What a judge's server or a model wrote may quote what is withheld; these are told by their names alone. */
const QUOTING: readonly (UnjudgedCause | null)[] = ['off_contract', 'wrong_nonce', 'unknown_rule', 'contradiction'];
const detailOf = ({ cause, detail }: Verdict): string =>
  QUOTING.includes(cause) ? "the judge's answer is not a verdict of the contract" : detail;

/** Why something was not judged, one line for each cause: for people, who see a notice without a reason. */
export function unjudgedReasons(turn: Turn): readonly string[] {
  const unjudged = turn.screened?.result.verdicts.filter((v) => v.outcome === 'unjudged') ?? [];
  return unjudged
    .filter((v, i) => unjudged.findIndex((other) => other.cause === v.cause) === i)
    .map((v) => `not judged (${v.cause ?? 'unknown'}): ${detailOf(v)}`);
}

/** The turn as `--json` prints it: only released text, and no rationale, as that may quote what is withheld. */
export function turnJson(turn: Turn): Record<string, unknown> {
  const { done, screened } = turn;
  const base = { finish: done.finish, answered: hasAnswer(turn), usage: done.usage };
  if (!screened) return { ...base, channels: transcript(done.messages), messages: done.messages };
  const channels = Object.fromEntries(
    screened.channels.map((c) => [channelLabel(c.channel), c.withheld ? { withheld: true, notice: c.text } : c.text]),
  );
  const verdicts = screened.result.verdicts.map((v) => ({
    policy: v.policy,
    channel: channelLabel(v.channel),
    outcome: v.outcome,
    rule: v.rule,
    cause: v.cause,
    detail: detailOf(v),
    digests: v.digests,
    latencyMs: v.latencyMs,
    ...(v.score === undefined ? {} : { score: v.score }),
    ...(v.threshold === undefined ? {} : { threshold: v.threshold }),
    ...(v.coverage ? { coverage: v.coverage } : {}),
    ...(v.view ? { view: v.view } : {}),
    ...(v.votes ? { votes: v.votes } : {}),
    ...(v.contract ? { contract: v.contract } : {}),
    ...(v.detectors ? { detectors: v.detectors } : {}),
    ...(v.findings ? { findings: v.findings } : {}),
  }));
  const receipt = screened.receipt === undefined ? {} : { receipt: screened.receipt };
  return { ...base, outcome: screened.result.outcome, ...receipt, channels, verdicts };
}

/** A conversation's opening as training data has it, then the turns so far. */
export function conversation(
  options: { readonly system?: string; readonly effort: Effort },
  turns: readonly Message[],
): readonly Message[] {
  const opening = options.system ? [{ role: 'developer', content: options.system }] : [];
  // A row needs a message; the user's own turns follow as they are.
  const { messages } = toConversation({
    messages: [...opening, { role: 'user', content: '-' }],
    reasoning_effort: options.effort,
  });
  return [...messages.slice(0, -1), ...turns];
}

/** What belongs in a history: a model may write headers that no history has. */
const isAnswer = (m: Message): boolean => m.role === 'assistant' && (m.channel === 'analysis' || m.channel === 'final');
/** Something of the turn was not released. */
export const wasWithheld = (turn: Turn): boolean => turn.screened?.channels.some((c) => c.withheld) ?? false;
/**
 * The turns so far with this one. A turn of which something was withheld is left out whole: it must not come back by
 * way of the context.
 */
export const continued = (turns: readonly Message[], user: Message, turn: Turn): readonly Message[] =>
  wasWithheld(turn) ? turns : [...turns, user, ...turn.done.messages.filter(isAnswer)];
