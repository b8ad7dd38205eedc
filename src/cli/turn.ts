// A turn on the command line: what generate and chat show of it, and what both say about it.
import { noAnswer, runTurn, type Turn, turnExitCode, turnJson, unjudgedReasons } from '../compose/turn.js';
import { sayNotices } from './engine-options.js';
import { createShow } from './terminal.js';

export { createShow, runTurn, turnExitCode, turnJson };

/** Says on stderr why something was not judged, and that there is no answer or only a part of one. */
export function sayTurn(turn: Turn): void {
  sayNotices(unjudgedReasons(turn));
  const none = noAnswer(turn);
  if (none !== null) sayNotices([none]);
  else if (turn.done.finish === 'length') sayNotices(['the answer was cut off; raise --max-tokens or --context']);
}
