// Our own contract: a nonce that the verdict must echo; see ../contract.ts, with which judges are trained, too.
import { parseVerdict, renderJudgePrompt } from '../contract.js';
import type { Contract } from './contract.js';

export const temper: Contract = {
  name: 'temper',
  version: 1,
  messages(request) {
    const { developer, user } = renderJudgePrompt(request);
    return [
      { role: 'system', content: developer },
      { role: 'user', content: user },
    ];
  },
  parse: parseVerdict,
};
