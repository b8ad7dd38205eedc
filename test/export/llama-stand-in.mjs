#!/usr/bin/env node
// Stands in for llama.cpp's server in tests of how it is started, asked and ended. LLAMA_STAND_IN says what it does
// wrong; its answers are a function of the prompt's last token and length, or stand in the file LLAMA_ANSWERS by
// prompt.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const mode = process.env.LLAMA_STAND_IN ?? 'good';
const args = process.argv.slice(2);
const value = (flag) => args[args.indexOf(flag) + 1];
if (args[0] === '--help') {
  process.stdout.write('-m, --model FNAME\n-fa, --flash-attn [on|off|auto]\n-ctk, --cache-type-k TYPE\n--swa-full\n');
  process.exit(0);
}
process.stderr.write(`arguments: ${args.join(' ')}\n`);
if (mode === 'no model') {
  process.stderr.write("error: failed to load model 'x'\nbye\n");
  process.exit(1);
}
process.on('SIGTERM', () => {
  if (mode !== 'stays') process.exit(0);
});

const answers = process.env.LLAMA_ANSWERS ? JSON.parse(readFileSync(process.env.LLAMA_ANSWERS, 'utf8')) : null;
/** A prompt that begins with 100 + its place here is answered so. */
const FAULTS = [
  'no json',
  'refuses',
  'no probabilities',
  'short',
  'other vocabulary',
  'twice',
  'null',
  'positive',
  'zero',
];
/** Log-probabilities of `n` tokens: a softmax of integers. */
function expected(prompt, n) {
  if (answers) return answers[prompt.join(' ')];
  const logits = Array.from({ length: n }, (_, i) => ((i * 7 + prompt.length * 3 + (prompt.at(-1) ?? 0)) % 13) / 4);
  const all = Math.log(logits.reduce((a, x) => a + Math.exp(x), 0));
  return logits.map((x) => x - all);
}
const send = (response, status, body) => {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
};
createServer((request, response) => {
  if (request.url === '/health') {
    send(response, mode === 'loading' ? 503 : 200, { status: mode });
    return;
  }
  if (request.url === '/props') {
    send(response, 200, { build_info: 'b1-standin' });
    return;
  }
  let text = '';
  request.on('data', (piece) => (text += piece));
  request.on('end', () => {
    if (request.url === '/tokenize')
      return send(response, 200, { tokens: process.env.LLAMA_STAND_IN === 'no token' ? [] : [7] });
    const { prompt, n_probs: n, logit_bias: bias } = JSON.parse(text),
      mode = FAULTS[prompt[0] - 100] ?? process.env.LLAMA_STAND_IN;
    if (mode === 'crash') process.exit(3);
    if (mode === 'silent') return;
    if (mode === 'no json') return send(response, 200, 'once upon a time');
    if (mode === 'refuses') return send(response, 400, { error: { message: 'context too small' } });
    // Nor has the real one any where the token it takes is half a character: here, all but 7.
    if (mode === 'no probabilities' || bias?.[0]?.[0] !== 7) return send(response, 200, { content: 'x' });
    let top = expected(prompt, n).map((logprob, id) => ({ id, token: 'x', logprob }));
    if (mode === 'short') top = top.slice(0, n / 2);
    if (mode === 'other vocabulary') top[0].id = n;
    if (mode === 'twice') top[1].id = 0;
    if (mode === 'null') top[1].logprob = null;
    if (mode === 'positive') top[1].logprob = 5;
    if (mode === 'zero') top[1].logprob = -3.4028234663852886e38;
    send(response, 200, { completion_probabilities: [{ id: 0, top_logprobs: top.reverse() }] });
  });
}).listen(Number(value('--port')), value('--host'));
