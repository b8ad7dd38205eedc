// What a model can do, on rows that it was not trained on: exact match, and the loss of the answer that is known.
import { z } from 'zod';
import { analysisOf, converse, finalOf, scorer } from './scorer.js';

export const heldOut = scorer({
  name: 'held-out',
  about: 'Rows whose answer is known: whether the model gives it, and how probable it finds it.',
  values: {
    wrong: 'the final is another text than the known one',
    'thought-wrong': 'the analysis is',
    loss: 'mean −log p of the known answer, nats a token',
  },
  expect: z.strictObject({ final: z.string(), analysis: z.string().optional() }),
  judges: false,
  observes: ({ expect }, value) => value !== 'thought-wrong' || expect.analysis !== undefined,
  async score(prompt, tools) {
    const answers = await converse(prompt, tools);
    const answer = answers.at(-1);
    const { final, analysis } = prompt.expect;
    const stopped = answer?.finish === 'stop';
    const messages = [
      ...prompt.opening,
      ...prompt.turns.slice(0, 1).map((content) => ({ role: 'user' as const, content })),
    ];
    const loss = prompt.turns.length > 1 ? null : await tools.loss(messages, prompt.expect);
    return {
      values: {
        wrong: Number(!answer || !stopped || finalOf(answer).trim() !== final.trim()),
        'thought-wrong': analysis === undefined ? 0 : Number(!answer || analysisOf(answer).trim() !== analysis.trim()),
        loss: loss !== null && Number.isFinite(loss) ? loss : null,
      },
      answers,
    };
  },
});
