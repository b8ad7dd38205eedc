// Verdicts over the texts of one answer: asked for, remembered, and logged before they count.
import { ScreeningError } from '../../base/errors.js';
import { channelLabel } from '../contract.js';
import type { Channels, KnownVerdict, Screen, ScreenResult } from '../screen.js';
import { Series } from '../series.js';
import type { Verdict } from '../types.js';
import type { HeldSink, ScreeningMode } from './sink.js';

export interface AskerOptions {
  readonly screen: Screen;
  readonly mode: ScreeningMode;
  readonly log?: HeldSink | undefined;
  /** Id of the answer, as its client knows it. */
  readonly subject?: string | undefined;
  readonly choice?: number | undefined;
  /** Nothing is judged before all of it is there. */
  readonly whole: boolean;
}

export class Asker {
  readonly #known = new Map<string, Verdict>();
  readonly #series: Series | undefined;
  #receipt: string | null = null;
  #calls = 0;

  constructor(readonly options: AskerOptions) {
    this.#series = options.whole ? undefined : new Series();
  }

  /** Of the last verdict that was logged; null: none was. */
  get receipt(): string | null {
    return this.#receipt;
  }
  /** How often the screen was asked. */
  get calls(): number {
    return this.#calls;
  }

  /**
   * @param whole these are all of their channels, and no beginnings
   * @throws {ScreeningError} verdict_not_logged
   */
  async ask(channels: Channels, whole: boolean, signal: AbortSignal): Promise<ScreenResult> {
    this.#calls++;
    const result = await this.options.screen.screen(channels, signal, this.#verdictOf, this.#series);
    for (const v of result.verdicts) if (v.outcome !== 'unjudged') this.#known.set(keyOf(v, v.digests.content), v);
    // What was given up counts for nothing, so that there is nothing to log.
    if (!signal.aborted) await this.#append(result.verdicts, whole);
    return result;
  }
  readonly #verdictOf: KnownVerdict = (policy, channel, digests) => {
    const known = this.#known.get(keyOf({ policy, channel }, digests.content));
    const same = known?.digests.policy === digests.policy && known.digests.judge === digests.judge;
    return same ? known : undefined;
  };
  async #append(verdicts: readonly Verdict[], whole: boolean): Promise<void> {
    const { log, subject = '', choice = 0, mode } = this.options;
    if (!log) return;
    try {
      const receipts = await Promise.all(
        verdicts.map(async ({ policy, channel, outcome, rule, cause, digests, latencyMs, contract, detectors }) =>
          log.append({
            subject,
            choice,
            mode,
            whole,
            policy,
            channel: channelLabel(channel),
            outcome,
            rule,
            cause,
            digests,
            latencyMs,
            ...(contract ? { contract } : {}),
            ...(detectors ? { detectors } : {}),
          }),
        ),
      );
      this.#receipt = receipts.at(-1)?.receipt ?? this.#receipt;
    } catch (cause) {
      throw new ScreeningError(
        'verdict_not_logged',
        `a verdict could not be logged (${cause instanceof Error ? cause.name : 'an error'}), so nothing is ` +
          'released by it; see that the log can be written',
        {},
        { cause },
      );
    }
  }
}
const keyOf = ({ policy, channel }: { readonly policy: string; readonly channel: string }, content: string): string =>
  JSON.stringify([policy, channel, content]);
