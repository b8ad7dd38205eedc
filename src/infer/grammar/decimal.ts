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
const tenTo = (n: number): bigint => 10n ** BigInt(n);
/** Digits after the point beyond those that the bounds have. */
const FINER = 12;
const FREE_DIGITS = 15;
const MOST_DIGITS = 400;

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
  const size = Math.max(...bounds.map((d) => String(d.whole < 0n ? -d.whole : d.whole).length - d.scale), 0);
  return {
    scale,
    least: least ? units(least) + (rule.above ? 1n : 0n) : null,
    most: most ? units(most) - (rule.below ? 1n : 0n) : null,
    multiple: steps.length === 0 ? null : steps.reduce(lcm),
    digits: Math.min(MOST_DIGITS, Math.max(size + 1, FREE_DIGITS)),
    free,
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

/** What is written of a number. */
export interface NumberState {
  readonly negative: boolean;
  readonly phase: 'sign' | 'zero' | 'digits' | 'point' | 'fraction' | 'e' | 'esign' | 'exponent';
  readonly value: bigint;
  readonly text: string;
  /** Digits before and after the point, of the exponent. */
  readonly whole: number;
  readonly fraction: number;
}
export const NUMBER_START: NumberState = {
  negative: false,
  phase: 'sign',
  value: 0n,
  text: '',
  whole: 0,
  fraction: 0,
};

/** Some number within the plan begins like that. */
function alive(plan: NumberPlan, s: NumberState): boolean {
  if (plan.free) return true;
  const both = (low: bigint, high: bigint): boolean => (s.negative ? holds(plan, -high, -low) : holds(plan, low, high));
  if (s.phase === 'sign') return plan.least === null || plan.least <= 0n;
  if (s.phase === 'point' || s.phase === 'fraction') {
    const rest = tenTo(plan.scale - s.fraction);
    return both(s.value * rest, (s.value + 1n) * rest - 1n);
  }
  const unit = tenTo(plan.scale);
  for (let more = 0; more <= (s.phase === 'zero' ? 0 : plan.digits - s.whole); more++) {
    const wide = tenTo(more);
    if (both(s.value * wide * unit, (s.value + 1n) * wide * unit - 1n)) return true;
  }
  return false;
}

/** @returns null: no number of the plan goes on with that byte */
export function nextNumber(plan: NumberPlan, s: NumberState, byte: number): NumberState | null {
  const text = s.text + String.fromCharCode(byte);
  const digit = byte >= 0x30 && byte <= 0x39;
  let to: NumberState | null = null;
  const value = s.value * 10n + BigInt(digit ? byte - 0x30 : 0);
  switch (s.phase) {
    case 'sign':
      if (byte === 0x2d && !s.negative) to = { ...s, negative: true, text };
      else if (byte === 0x30) to = { ...s, phase: 'zero', whole: 1, text };
      else if (digit) to = { ...s, phase: 'digits', value, whole: 1, text };
      break;
    case 'zero':
    case 'digits':
      if (s.phase === 'digits' && digit && s.whole < plan.digits) to = { ...s, value, whole: s.whole + 1, text };
      else if (byte === 0x2e && (plan.free || plan.scale > 0)) to = { ...s, phase: 'point', text };
      else if (plan.free && (byte === 0x65 || byte === 0x45)) to = { ...s, phase: 'e', text };
      break;
    case 'point':
    case 'fraction':
      if (digit && s.fraction < (plan.free ? FREE_DIGITS : plan.scale))
        to = { ...s, phase: 'fraction', value, fraction: s.fraction + 1, text };
      else if (s.phase === 'fraction' && plan.free && (byte === 0x65 || byte === 0x45)) to = { ...s, phase: 'e', text };
      break;
    case 'e':
      if (byte === 0x2b || byte === 0x2d) to = { ...s, phase: 'esign', text };
      else if (digit) to = { ...s, phase: 'exponent', text };
      break;
    case 'esign':
      if (digit) to = { ...s, phase: 'exponent', text };
      break;
    case 'exponent':
      // A number that JavaScript holds: infinity is none.
      if (digit && /[eE][+-]?\d{1,2}$/.test(s.text) && Number.isFinite(Number(text))) to = { ...s, text };
      break;
  }
  return to && alive(plan, to) ? to : null;
}
/** It may end here. */
export function isNumber(plan: NumberPlan, s: NumberState): boolean {
  if (s.phase === 'sign' || s.phase === 'point' || s.phase === 'e' || s.phase === 'esign') return false;
  if (plan.free) return true;
  const units = s.value * tenTo(plan.scale - s.fraction);
  return holds(plan, s.negative ? -units : units, s.negative ? -units : units);
}
/** Some number keeps to it. */
export const hasNumber = (plan: NumberPlan): boolean => {
  const start = { ...NUMBER_START };
  for (let b = 0x2d; b <= 0x39; b++) if (nextNumber(plan, start, b)) return true;
  return false;
};
