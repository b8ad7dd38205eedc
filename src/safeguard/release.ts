// Hold-back: text goes in as it is sampled, and comes out only when every verdict over its channel allows it.
import { channelLabel } from './contract.js';
import type { Channels, Screen, ScreenResult } from './screen.js';
import type { Verdict } from './types.js';

export interface ReleasedChannel {
  readonly channel: string;
  /** The judged text, or a notice in its place. */
  readonly text: string;
  readonly withheld: boolean;
}
export interface Release {
  readonly channels: readonly ReleasedChannel[];
  readonly result: ScreenResult;
}

/**
 * What stands in place of withheld text. It tells the rule, never the text or the judge's reasoning, which would repeat
 * it.
 */
export function withheldNotice(channel: string, verdicts: readonly Verdict[]): string {
  const own = verdicts.filter((v) => v.channel === channel);
  const label = channelLabel(channel);
  const blocked = own.find((v) => v.outcome === 'block');
  if (blocked) return `[${label} withheld: policy ${blocked.policy}, rule ${blocked.rule ?? '?'}]`;
  const cause = own.find((v) => v.outcome === 'unjudged')?.cause ?? 'no_policy';
  return `[${label} withheld: not judged (${cause})]`;
}

/** Applies a screen's result to the very text that was judged. */
export function releaseChannels(channels: Channels, result: ScreenResult): readonly ReleasedChannel[] {
  return Object.entries(channels)
    .filter(([, text]) => text !== '')
    .map(([channel, text]) => {
      const allowed = Object.hasOwn(result.channels, channel) && result.channels[channel] === 'allow';
      return { channel, text: allowed ? text : withheldNotice(channel, result.verdicts), withheld: !allowed };
    });
}

/**
 * Holds one response: `push` as it is sampled, then `release` once. Channels never mix, whatever the order of the
 * deltas.
 */
export class HeldResponse {
  #text = new Map<string, string>();
  #released = false;
  constructor(readonly screen: Screen) {}

  push(channel: string, delta: string): void {
    if (this.#released)
      throw new Error('HeldResponse: text was pushed after its release; make a new one for each response');
    this.#text.set(channel, (this.#text.get(channel) ?? '') + delta);
  }
  /** Judges all that was pushed, whole, and gives out what may pass. */
  async release(signal?: AbortSignal): Promise<Release> {
    this.#released = true;
    const channels = Object.fromEntries(this.#text);
    const result = await this.screen.screen(channels, signal);
    return { channels: releaseChannels(channels, result), result };
  }
}
