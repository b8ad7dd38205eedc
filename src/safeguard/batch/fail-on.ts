// What makes a run fail, as `--fail-on` has it. Without a rule anything but an allow does.
import { ConfigError } from '../../base/errors.js';
import type { VerdictRow } from '../agreement.js';

export interface FailRule {
  /** As it was given. */
  readonly text: string;
  readonly what: 'block' | 'unjudged';
  readonly policy: string | null;
  /** A case of it counts as well: C2.a where C2 is meant. */
  readonly rule: string | null;
  readonly channel: string | null;
  /** It fails above this: a count, or a share of the verdicts on that channel, `parts` of `of`. */
  readonly above: { readonly count: number } | { readonly parts: number; readonly of: number };
}

const FORM = /^([^@>]+?)(?:@([^@>]+))?(?:>([0-9]+(?:\.[0-9]+)?)(%)?)?$/;

/**
 * `block`, `unjudged`, `POLICY` or `POLICY/RULE`, then `@CHANNEL`, then `>N` or `>N%`.
 * @throws {ConfigError} bad_option
 */
export function parseFailRule(text: string): FailRule {
  const [, what = '', channel, limit, percent] = FORM.exec(text) ?? [];
  const isWhole = limit === undefined || percent !== undefined || /^[0-9]+$/.test(limit);
  if (what === '' || !isWhole || (percent !== undefined && Number(limit) > 100))
    throw new ConfigError(
      'bad_option',
      `--fail-on ${text}: wanted block, unjudged, POLICY or POLICY/RULE, with @CHANNEL, >N or >N%, as in ` +
        "'block@final>2%'",
    );
  const isWord = what === 'block' || what === 'unjudged';
  const slash = what.startsWith('detector/') ? what.indexOf('/', 9) : what.indexOf('/');
  const above = percent === undefined ? { count: Number(limit ?? 0) } : shareOf(limit ?? '');
  return {
    text,
    what: isWord ? what : 'block',
    policy: isWord ? null : slash < 0 ? what : what.slice(0, slash),
    rule: isWord || slash < 0 ? null : what.slice(slash + 1),
    channel: channel ?? null,
    above,
  };
}

/** A percentage in whole numbers: 29 of 100 are not above 29 %, though 0.29 · 100 is below 29 as a double. */
function shareOf(percent: string): { readonly parts: number; readonly of: number } {
  const [whole = '', decimals = ''] = percent.split('.');
  return { parts: Number(whole + decimals), of: 100 * 10 ** decimals.length };
}

/** Counts verdicts for the rules; with none, every block and every unjudged fails. */
export class FailCount {
  readonly #hits: number[];
  readonly #all: number[];
  constructor(readonly rules: readonly FailRule[]) {
    this.#hits = rules.map(() => 0);
    this.#all = rules.map(() => 0);
  }
  add(v: Pick<VerdictRow, 'outcome' | 'policy' | 'rule' | 'channel'>): void {
    for (const [i, r] of this.rules.entries()) {
      if (r.channel !== null && r.channel !== v.channel) continue;
      if (r.policy !== null && r.policy !== v.policy) continue;
      this.#all[i] = (this.#all[i] ?? 0) + 1;
      if (v.outcome !== r.what) continue;
      if (r.rule === null || v.rule === r.rule || v.rule?.startsWith(`${r.rule}.`))
        this.#hits[i] = (this.#hits[i] ?? 0) + 1;
    }
  }
  /** The rules that were broken, and by how much. */
  broken(): readonly { readonly rule: FailRule; readonly count: number; readonly of: number }[] {
    return this.rules.flatMap((rule, i) => {
      const [count, of] = [this.#hits[i] ?? 0, this.#all[i] ?? 0];
      const { above } = rule;
      const isBroken = 'count' in above ? count > above.count : count * above.of > above.parts * of;
      return isBroken ? [{ rule, count, of }] : [];
    });
  }
  /** Rules on a channel, or of a policy on one, of which there was no verdict: they cannot be broken. */
  idle(): readonly FailRule[] {
    return this.rules.filter((rule, i) => rule.channel !== null && this.#all[i] === 0);
  }
  /** 10 if a rule on blocks is broken, else 30 if one on what is unjudged is, else 0. */
  exitCode(): 0 | 10 | 30 {
    const broken = this.broken();
    return broken.some((b) => b.rule.what === 'block') ? 10 : broken.length > 0 ? 30 : 0;
  }
}
