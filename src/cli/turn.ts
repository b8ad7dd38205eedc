// A turn on the command line: what generate and chat show of it, and what both say about it.
import type { Holding } from '../compose/held-turn.js';
import type { OpenScreen } from '../compose/screening.js';
import { runShownTurn } from '../compose/shown-turn.js';
import {
  noAnswer,
  runTurn,
  type Show,
  type Turn,
  turnExitCode,
  turnJson,
  unjudgedReasons,
  wasWithheld,
} from '../compose/turn.js';
import type { Engine } from '../infer/engine.js';
import type { GenerateRequest } from '../infer/protocol.js';
import { withheldNotice } from '../safeguard/release.js';
import { sayNotices } from './engine-options.js';
import { createShow } from './terminal.js';

export { createShow, runTurn, turnExitCode, turnJson };

/** Runs a turn that is shown as it comes, as far as it is allowed. */
export async function showTurn(
  engine: Engine,
  request: GenerateRequest,
  screen: Pick<OpenScreen, 'screen' | 'mode' | 'log' | 'ahead'> | null,
  show: Show,
  signal: AbortSignal,
): Promise<Turn> {
  if (!screen) return runTurn(engine, request, null, show, signal);
  return runShownTurn(engine, request, screen.screen, show, holdingOf(screen), signal);
}

const holdingOf = ({ mode, log, ahead }: Pick<OpenScreen, 'mode' | 'log' | 'ahead'>): Holding => ({
  mode,
  ...(ahead === undefined ? {} : { ahead }),
  ...(log ? { log: log.held } : {}),
});

/** Says on stderr why something was not judged, and that there is no answer or only a part of one. */
export function sayTurn(turn: Turn): void {
  sayNotices(unjudgedReasons(turn));
  if (!wasWithheld(turn)) sayNotices(passedOver(turn));
  const none = noAnswer(turn);
  if (none !== null) sayNotices([none]);
  else if (turn.done.finish === 'length') sayNotices(['the answer was cut off; raise --max-tokens or --context']);
}

/** What a shadow released though it was not allowed. */
function passedOver({ screened }: Turn): readonly string[] {
  const { channels = {}, verdicts = [] } = screened?.result ?? {};
  return Object.keys(channels)
    .filter((channel) => channels[channel] !== 'allow')
    .map((channel) => `shadow: without --shadow it would say ${withheldNotice(channel, verdicts)}`);
}
