// A turn that is judged, for whoever shows it as it comes: each channel by itself, a sentence as soon as it is allowed.
import type { Engine } from '../infer/engine.js';
import type { GenerateRequest } from '../infer/protocol.js';
import { releaseRules } from '../safeguard/holdback/rules.js';
import type { Screen } from '../safeguard/screen.js';
import { type Holding, heldTurn } from './held-turn.js';
import type { Show, Turn } from './turn.js';

/**
 * As `runTurn` with a screen, but text is shown while the turn is sampled, as far as it is allowed. What is withheld
 * has a notice in its place, and a final that is blocked ends the turn.
 */
export async function runShownTurn(
  engine: Engine,
  request: GenerateRequest,
  screen: Screen,
  show: Show,
  holding: Holding,
  signal: AbortSignal,
): Promise<Turn> {
  const drops = releaseRules(screen.policies).analysis === 'drop';
  const last = new Map<string, number>();
  for await (const event of heldTurn(engine, request, screen, { ...holding, whole: false, apart: true }, signal)) {
    if (event.kind === 'done') return event.turn;
    const { message, channel, recipient, text, withheld } = event.piece;
    if (drops && channel === 'analysis' && !withheld) continue;
    // As `transcript` has it: each message from a line of its own, a call headed by its recipient.
    const begins = withheld || last.get(channel) !== message;
    const apart = begins && last.has(channel) ? '\n' : '';
    last.set(channel, message);
    show(
      channel,
      begins && recipient !== null && !withheld ? `${apart}to=${recipient} ${text}` : apart + text,
      withheld,
    );
  }
  throw new Error('a turn ended without its end');
}
