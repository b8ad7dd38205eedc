// Numbers as JSON writes them, bounded exactly: which digits may come so that a number within the bounds, and a
// multiple of what is asked for, can still become of them.

/** whole · 10^−scale */
export interface Decimal {
  readonly whole: bigint;
  readonly scale: number;
}
/** @throws {RangeError} no finite number */
export function decimalOf(n: number): Decimal {
  const m = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(n));
  if (!m) throw new RangeError('no finite number');
  const fraction = m[3] ?? '';
  const scale = fraction.length - Number(m[4] ?? 0);
  const whole = BigInt(`${m[1]}${m[2]}${fraction}`);
  return scale >= 0 ? { whole, scale } : { whole: whole * 10n ** BigInt(-scale), scale: 0 };
}

/** As decimals: 19.99 is a multiple of 0.01. @throws {RangeError} no finite number */
export function isMultiple(value: number, of: number): boolean {
  const [a, b] = [decimalOf(value), decimalOf(of)];
  const scale = Math.max(a.scale, b.scale);
  return (a.whole * 10n ** BigInt(scale - a.scale)) % (b.whole * 10n ** BigInt(scale - b.scale)) === 0n;
}

export interface NumberRule {
  readonly integer: boolean;
  readonly least?: Decimal;
  readonly most?: Decimal;
  /** The bound itself is out. */
  readonly above?: boolean;
  readonly below?: boolean;
  /** All of them. */
  readonly multiples: readonly Decimal[];
}

const lcm = (a: bigint, b: bigint): bigint => {
  let [x, y] = [a, b];
  while (y > 0n) [x, y] = [y, x % y];
  return (a / x) * b;
};
/** By exponent: some hundred at the most, as doubles have no more. */
const powers: bigint[] = [];
const tenTo = (n: number): bigint => (powers[n] ??= 10n ** BigInt(n));
/** Digits after the point beyond those that the bounds have. */
const FINER = 12;
const FREE_DIGITS = 15;
const MOST_DIGITS = 400;

/** Steps of one unit are no rule. */
const wholeStep = (step: bigint): bigint | null => (step === 1n ? null : step);

/** Bounds in units of 10^−scale, both within. */
export interface NumberPlan {
  readonly scale: number;
  readonly least: bigint | null;
  readonly most: bigint | null;
  readonly multiple: bigint | null;
  /** Most digits before the point. */
  readonly digits: number;
  /** Neither bounds nor multiples: exponents may be written. */
  readonly free: boolean;
  /** Nothing is asked of the digits. */
  readonly loose: boolean;
  readonly start: NumberState;
  /** Of a loose plan, by counts. */
  readonly states: Map<string, NumberState>;
}
export function planOf(rule: NumberRule): NumberPlan {
  const { integer, least, most, multiples } = rule;
  const free = !integer && !least && !most && multiples.length === 0;
  const bounds = [least, most].filter((d) => d !== undefined);
  const finest = Math.max(0, ...bounds.map((d) => d.scale));
  const scale = Math.max(finest, ...multiples.map((m) => m.scale)) + (integer || multiples.length > 0 ? 0 : FINER);
  const units = ({ whole, scale: own }: Decimal): bigint => whole * tenTo(scale - own);
  const steps = multiples.map(units);
  if (integer) steps.push(tenTo(scale));
  const multiple = steps.length === 0 ? null : wholeStep(steps.reduce(lcm));
  const loose = !least && !most && multiple === null;
  const size = Math.max(...bounds.map((d) => String(d.whole < 0n ? -d.whole : d.whole).length - d.scale), 0);
  return {
    scale,
    least: least ? units(least) + (rule.above ? 1n : 0n) : null,
    most: most ? units(most) - (rule.below ? 1n : 0n) : null,
    multiple,
    digits: Math.min(MOST_DIGITS, Math.max(size + 1, FREE_DIGITS)),
    free,
    loose,
    start: stateOf(false, 'sign', '', 0, 0, 0),
    states: new Map(),
  };
}

/** A multiple within [low, high] and the bounds. */
function holds({ least, most, multiple }: NumberPlan, low: bigint, high: bigint): boolean {
  const from = least !== null && least > low ? least : low;
  const to = most !== null && most < high ? most : high;
  if (from > to) return false;
  if (multiple === null) return true;
  const over = ((from % multiple) + multiple) % multiple;
  return over === 0n || from + multiple - over <= to;
}

type Phase = 'sign' | 'zero' | 'digits' | 'point' | 'fraction' | 'e' | 'esign' | 'exponent';
/** What is written of a number. */
export interface NumberState {
  readonly negative: boolean;
  readonly phase: Phase;
  /** Without it states of equal counts are one: nothing is asked of the digits. */
  readonly text: string;
  /** Digits before and after the point; the exponent so far. */
  readonly whole: number;
  readonly fraction: number;
  readonly exponent: number;
  /** By byte: what comes next, as far as it was asked for. */
  readonly next: Map<number, NumberState | null>;
}
const stateOf = (
  negative: boolean,
  phase: Phase,
  text: string,
  whole: number,
  fraction: number,
  exponent: number,
): NumberState => ({ negative, phase, text, whole, fraction, exponent, next: new Map() });

/** The digits without sign and point. */
const digitsOf = (s: NumberState): bigint => BigInt(s.text.replace(/[-.]/g, ''));

/** Some number within the plan begins like that. */
function alive(plan: NumberPlan, s: NumberState): boolean {
  if (plan.loose) return true;
  // Nothing to keep to on that side: the usual case, and there are a thousand tokens of digits.
  if (plan.multiple === null && (s.negative ? plan.least === null : plan.most === null)) {
    const other = s.negative ? plan.most : plan.least;
    if (other === null || (s.negative ? other >= 0n : other <= 0n)) return true;
  }
  const both = (low: bigint, high: bigint): boolean => (s.negative ? holds(plan, -high, -low) : holds(plan, low, high));
  if (s.phase === 'sign') {
    for (let b = 0x30; b <= 0x39; b++) if (nextNumber(plan, s, b)) return true;
    return false;
  }
  const value = digitsOf(s);
  if (s.phase === 'point' || s.phase === 'fraction') {
    const rest = tenTo(plan.scale - s.fraction);
    return both(value * rest, (value + 1n) * rest - 1n);
  }
  const unit = tenTo(plan.scale);
  for (let more = 0; more <= (s.phase === 'zero' ? 0 : plan.digits - s.whole); more++) {
    const wide = tenTo(more);
    if (both(value * wide * unit, (value + 1n) * wide * unit - 1n)) return true;
  }
  return false;
}

/** Longer prefixes than that are not remembered. */
const REMEMBERED = 3;
/** Larger exponents could make a number that JavaScript takes for infinity. */
const MOST_EXPONENT = 289;

/** @returns null: no number of the plan goes on with that byte */
export function nextNumber(plan: NumberPlan, s: NumberState, byte: number): NumberState | null {
  const known = s.next.get(byte);
  if (known !== undefined) return known;
  const made = makeNext(plan, s, byte);
  const to = made && alive(plan, made) ? made : null;
  if (plan.loose || s.text.length < REMEMBERED) s.next.set(byte, to);
  return to;
}
function makeNext(plan: NumberPlan, s: NumberState, byte: number): NumberState | null {
  const digit = byte >= 0x30 && byte <= 0x39;
  const to = (phase: Phase, more: Partial<Pick<NumberState, 'negative' | 'whole' | 'fraction' | 'exponent'>> = {}) => {
    const { negative, whole, fraction, exponent } = { ...s, ...more };
    if (!plan.loose) return stateOf(negative, phase, s.text + String.fromCharCode(byte), whole, fraction, exponent);
    const key = `${negative} ${phase} ${whole} ${fraction} ${exponent}`;
    let state = plan.states.get(key);
    if (!state) {
      state = stateOf(negative, phase, '', whole, fraction, exponent);
      plan.states.set(key, state);
    }
    return state;
  };
  const isE = plan.free && (byte === 0x65 || byte === 0x45);
  switch (s.phase) {
    case 'sign':
      if (byte === 0x2d) return s.negative ? null : to('sign', { negative: true });
      return digit ? to(byte === 0x30 ? 'zero' : 'digits', { whole: 1 }) : null;
    case 'zero':
    case 'digits':
      if (s.phase === 'digits' && digit && s.whole < plan.digits) return to('digits', { whole: s.whole + 1 });
      if (byte === 0x2e && (plan.free || plan.scale > 0)) return to('point');
      return isE ? to('e') : null;
    case 'point':
    case 'fraction':
      if (digit && s.fraction < (plan.free ? FREE_DIGITS : plan.scale))
        return to('fraction', { fraction: s.fraction + 1 });
      return isE && s.phase === 'fraction' ? to('e') : null;
    case 'e':
      if (byte === 0x2b || byte === 0x2d) return to('esign');
      return digit ? to('exponent', { exponent: byte - 0x30 }) : null;
    case 'esign':
      return digit ? to('exponent', { exponent: byte - 0x30 }) : null;
    case 'exponent': {
      const exponent = s.exponent * 10 + byte - 0x30;
      return digit && s.exponent > 0 && exponent <= MOST_EXPONENT ? to('exponent', { exponent }) : null;
    }
  }
}
/** It may end here. */
export function isNumber(plan: NumberPlan, s: NumberState): boolean {
  if (s.phase === 'sign' || s.phase === 'point' || s.phase === 'e' || s.phase === 'esign') return false;
  if (plan.loose) return true;
  const units = digitsOf(s) * tenTo(plan.scale - s.fraction);
  return holds(plan, s.negative ? -units : units, s.negative ? -units : units);
}
/** Some number keeps to it. */
export const hasNumber = (plan: NumberPlan): boolean => {
  for (let b = 0x2d; b <= 0x39; b++) if (nextNumber(plan, plan.start, b)) return true;
  return false;
};
