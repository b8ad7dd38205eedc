import { expect, it } from 'vitest';
import { createMeter } from '../../src/serve/meter.js';

it('guesses are counted, those that came apart; a turn without any counts none', async () => {
  const meter = createMeter({ running: 0, waiting: 0 } as never);
  const usage = { promptTokens: 9, completionTokens: 5, prefillMs: 1 };
  meter.turn({ usage } as never, false);
  meter.turn({ usage: { ...usage, draftedTokens: 7, acceptedTokens: 4 } } as never, false);
  const text = await meter.text();
  expect(text).toContain('temper_draft_tokens_total{kind="drafted"} 7');
  expect(text).toContain('temper_draft_tokens_total{kind="accepted"} 4');
});
