// The nano vocabulary: trained on what the nano models read and write, harmony's fixed texts and the policies included.
import { generate as generateDesk } from '../../datasets/desk/generate.mjs';
import { generate as generateScreening, vocabularyMix } from '../../datasets/screening/generate.mjs';
import { generate as generateTickets } from '../../datasets/tickets/generate.mjs';
import { tokenizerJson, trainBpe } from './bpe.mjs';

export const ordinaryTokens = 1003; // with the 21 control tokens: 1024 rows

// Said once in every conversation; spelled out here because the vocabulary must not depend on how the render is
// written.
const fixed = [
  'You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: ' +
    '2024-06\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel ' +
    'must be included for every message.',
  'Reasoning: low\n\n',
  'Reasoning: high\n\n',
  'Current date: 2026-01-01\n\n',
  '# Instructions\n\n',
  '# Tools\n\n',
  'system',
  'developer',
  'user',
  'assistant',
  'tool',
  'analysis',
  'commentary',
  'final',
  ' to',
  '=',
  'functions',
  ' json',
];

/** @param contract src/safeguard/contract.ts */
export function makeTokenizer(contract) {
  const chats = [
    generateDesk({ rows: 6000, heldout: 0, seed: 1 }).train,
    generateTickets({ rows: 2000, heldout: 0, seed: 2 }).train,
    generateScreening({ rows: 4000, heldout: 0, seed: 3 }, contract, vocabularyMix).train,
  ];
  const texts = fixed.map((t) => [t, 2000]);
  for (const row of chats.flat())
    for (const m of row.messages) {
      texts.push([m.content, 1]);
      if (m.thinking) texts.push([m.thinking, 1]);
    }
  return `${JSON.stringify(tokenizerJson(trainBpe(texts, ordinaryTokens)))}\n`;
}
