// What was looked at and what came of it, one line each.
import { TemperError } from '../base/errors.js';

export type FindingStatus = 'ok' | 'failed' | 'missing' | 'unchecked';
export type FindingGroup = 'signature' | 'files' | 'attestation' | 'gate' | 'chain' | 'override';
export interface Finding {
  readonly group: FindingGroup;
  /** Stable, as `signature.by`. */
  readonly id: string;
  /**
   * `failed`: it is there, and not what it must be. `missing`: it is not there. `unchecked`: it is there, and what it
   * would be held against is not.
   */
  readonly status: FindingStatus;
  /** What was looked at. */
  readonly what: string;
  /** What came of it, or why nothing did. */
  readonly why: string;
}

/** Findings of one group, as they are made. */
export class Findings {
  readonly list: Finding[] = [];
  constructor(readonly group: FindingGroup) {}
  add(status: FindingStatus, id: string, what: string, why: string): void {
    this.list.push({
      group: this.group,
      id: `${this.group}.${id}`,
      status,
      what,
      why: why.replaceAll(/\s*\n\s*/g, ' '),
    });
  }
  /** Runs a check; what it throws on purpose, of a file that cannot be read or is no JSON, is what failed. */
  async attempt<T>(id: string, what: string, check: () => Promise<T> | T): Promise<T | null> {
    try {
      return await check();
    } catch (e) {
      const said = e instanceof TemperError || e instanceof SyntaxError || (e instanceof Error && 'syscall' in e);
      if (!said) throw e;
      this.add('failed', id, what, e.message);
      return null;
    }
  }
}
/** Names for a line, not all of a thousand. */
export const some = (names: readonly string[], most = 6): string =>
  names.length <= most ? names.join(', ') : `${names.slice(0, most).join(', ')} and ${names.length - most} more`;
