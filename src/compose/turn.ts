// One turn of the assistant for generate and chat: stream it as it is sampled, or hold it back until it is judged.
import { toConversation } from '../harmony/chat.js';
import type { Effort, Message } from '../harmony/types.js';
import type { Engine } from '../infer/engine.js';
import type { EngineEvent, GenerateRequest } from '../infer/protocol.js';
import { channelLabel } from '../safeguard/contract.js';
import { HeldResponse, type ReleasedChannel } from '../safeguard/release.js';
import type { Screen, ScreenResult } from '../safeguard/screen.js';

type Done = Extract<EngineEvent, { readonly kind: 'done' }>;
export interface Turn {
  readonly done: Done;
  /** null: no policy was given, everything was shown as it came. */
  readonly screened: { readonly channels: readonly ReleasedChannel[]; readonly result: ScreenResult } | null;
}
/** Where text goes. Called with a piece of a channel; a new channel begins whenever the name changes. */
export type Show = (channel: string, text: string, withheld: boolean) => void;

/**
 * Runs one turn. With a screen, `show` is called only after the verdicts, once per channel, with released text or a
 * notice.
 */
export async function runTurn(
  engine: Engine,
  request: GenerateRequest,
  screen: Screen | null,
  show: Show,
  signal: AbortSignal,
): Promise<Turn> {
  const held = screen ? new HeldResponse(screen) : null;
  let done: Done | undefined;
  const recipients = new Set<string>();
  for await (const event of engine.generate(request, signal)) {
    if (event.kind === 'done') {
      done = event;
      continue;
    }
    const { channel, recipient, text } = event;
    // A recipient is text of the model like any other: it is judged with the call it heads.
    const key = `${channel} ${recipient ?? ''}`;
    const head = recipient !== null && !recipients.has(key) ? `to=${recipient} ` : '';
    recipients.add(key);
    if (held) held.push(channel, head + text);
    else show(channel, head + text, false);
  }
  if (!done) throw new Error('the engine ended a turn without its last event');
  if (!held) return { done, screened: null };
  const screened = await held.release(signal);
  signal.throwIfAborted();
  for (const c of screened.channels) show(c.channel, c.text, c.withheld);
  return { done, screened };
}

/** 10 if something is blocked, 30 if something is unjudged, else 0. */
export function turnExitCode(turn: Turn): 0 | 10 | 30 {
  if (!turn.screened || turn.screened.channels.every((c) => !c.withheld)) return 0;
  return turn.screened.result.outcome === 'block' ? 10 : 30;
}

/** The turn as `--json` prints it: only released text, and no rationale, as that may quote what is withheld. */
export function turnJson(turn: Turn): Record<string, unknown> {
  const { done, screened } = turn;
  const base = { finish: done.finish, usage: done.usage };
  if (!screened) {
    const channels = new Map<string, string>();
    for (const m of done.messages) {
      const name = channelLabel(m.role === 'assistant' ? (m.channel ?? '') : '');
      channels.set(name, (channels.get(name) ?? '') + m.content);
    }
    return { ...base, channels: Object.fromEntries(channels), messages: done.messages };
  }
  const channels = Object.fromEntries(
    screened.channels.map((c) => [channelLabel(c.channel), c.withheld ? { withheld: true, notice: c.text } : c.text]),
  );
  const verdicts = screened.result.verdicts.map(({ policy, channel, outcome, rule, cause, digests, latencyMs }) => ({
    policy,
    channel: channelLabel(channel),
    outcome,
    rule,
    cause,
    digests,
    latencyMs,
  }));
  return { ...base, outcome: screened.result.outcome, channels, verdicts };
}

/** Analysis and other channels go to stderr, dimmed on a terminal; final goes to stdout. */
export function createShow(dim: boolean): { show: Show; end(): void } {
  let current: string | null = null;
  const end = (): void => {
    if (current === null) return;
    (current === 'final' ? process.stdout : process.stderr).write(current === 'final' || !dim ? '\n' : '\x1b[0m\n');
    current = null;
  };
  return {
    end,
    show(channel, text, withheld) {
      const to = channel === 'final' ? process.stdout : process.stderr;
      if (channel !== current) {
        end();
        if (channel !== 'final') to.write(dim ? `\x1b[2m${channelLabel(channel)}: ` : `${channelLabel(channel)}: `);
        current = channel;
      }
      to.write(withheld && dim && channel === 'final' ? `\x1b[33m${printable(text)}\x1b[0m` : printable(text));
    },
  };
}

/** Text of a model must not drive the terminal: control characters but tab and newline are made visible. */
export const printable = (text: string): string =>
  text.replaceAll(/(?![\t\n])\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);

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
