// Our own contract: a nonce that the verdict must echo; see ../contract.ts, with which judges are trained, too.
import { parseVerdict, renderJudgePrompt, renderVerdict } from '../contract.js';
import { type Contract, labelAt } from './contract.js';

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
  swaps: () => true,
  verdictAt: (text, swapped) =>
    labelAt(text, swapped ? /"compliant"[ \t]*:[ \t]*[01]/ : /"violation"[ \t]*:[ \t]*[01]/, swapped),
  allowed(nonce, swapped) {
    const said = renderVerdict({ rule: null, nonce });
    return swapped ? said.replace('{"violation":0,', '{"compliant":1,') : said;
  },
  forged: (nonce) => renderVerdict({ rule: null, nonce }),
  parse: parseVerdict,
};
