// report.html of the demo: one self-contained page with the story, the figures and what was released. Readable offline,
// light and dark.

import type { VerifyResult } from '../export/export.js';
import { type Html, html, page } from '../report/html.js';
import { ratioText } from '../safeguard/agreement.js';
import type { Answer } from './measure.js';
import type { DemoResult, Released, Screened } from './story.js';

const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;

/** Examples of each kind; the counts go over all. */
const SHOWN = 2;

const STYLE = `
main { max-width: 900px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 6px; }
h2 { font-size: 18px; margin: 36px 0 8px; }
h3 { font-size: 15px; margin: 22px 0 0; }
p { margin: 6px 0 12px; max-width: 72ch; }
a { color: inherit; }
.soft { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0; }
.figures div, dl { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.figures b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: 13px; }
dl { display: grid; grid-template-columns: 90px 1fr; gap: 4px 12px; margin: 10px 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font: 13.5px/1.5 ui-monospace, monospace; }
dd.withheld { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
td { font-variant-numeric: tabular-nums; }
.ok { color: var(--good); font-weight: 600; }
.no { color: var(--bad); font-weight: 600; }`;

const said = (prompt: string, answer: Answer | undefined): Html => {
  const plain = (text = ''): Released => ({ text, withheld: false, rule: null });
  return entries(prompt, plain(answer?.analysis), plain(answer?.final));
};
function entries(prompt: string, analysis: Released, final: Released): Html {
  const row = (name: string, r: Released): Html =>
    html`<dt>${name}</dt><dd class="${r.withheld && 'withheld'}">${r.text}</dd>`;
  return html`<dl><dt>guest</dt><dd>${prompt}</dd>${row('analysis', analysis)}${row('final', final)}</dl>`;
}

/** What the verifier found, in words. */
export const verifiedLine = (v: VerifyResult): string =>
  `${v.compared} logits ${v.ok ? 'agree' : 'DO NOT agree'} with the trained adapter; ` +
  `largest difference ${v.maxDifference.toExponential(1)} at logits up to ` +
  `${v.maxLogit.toFixed(1)}, where the adapter moves them by up to ` +
  `${v.maxEffect.toFixed(1)}.`;

/** @param pages paths of the training run's and the gate's own pages, relative to this one */
export function demoReport(
  r: DemoResult,
  shown: { readonly request: string; readonly base: Answer | undefined; readonly tuned: Answer | undefined },
  pages: { readonly training: string; readonly gate: string },
): string {
  const figure = (value: string, what: string): Html => html`<div><b>${value}</b><span>${what}</span></div>`;
  const group = (title: string, about: string, rows: readonly Screened[]): Html => html`<h3>${title}</h3>
<p class="soft">${about} As wanted: ${rows.filter((s) => s.asWanted).length} of ${rows.length}.</p>
${rows.slice(0, SHOWN).map((s) => entries(s.prompt, s.analysis, s.final))}`;
  const under = (policy: string, kind: Screened['kind']): readonly Screened[] =>
    r.screened.filter((s) => s.policy === policy && s.kind === kind);
  return page(
    'Temper demo',
    STYLE,
    html`<main>
<h1>Temper demo</h1>
<p class="soft">A gpt-oss in miniature is fine-tuned through its MXFP4 experts, screened by a judge of the same make,
held to a release gate, exported and signed. ${r.seconds.toFixed(0)} seconds on this machine's
CPU; everything quoted was generated in this run.</p>
<div class="figures">${figure(percent(r.base.share), 'tickets before, exact match')}
${figure(percent(r.tuned.share), `tickets after, on ${r.tuned.rows} held-out requests`)}
${figure(`${r.training.seconds.toFixed(0)} s`, `of LoRA training, ${Math.round(r.training.tokensPerSecond)} tokens/s`)}
${figure(ratioText(r.judge.final.f1), 'judge F1, finals')}
${figure(ratioText(r.judge.analysis.f1), 'judge F1, analyses')}</div>
<h2>1 · The base model answers plainly</h2>
${said(shown.request, shown.base)}
<h2>2 · LoRA teaches it tickets</h2>
<p>${r.training.steps} steps, ${r.training.tokens} tokens: loss ${r.training.firstLoss.toFixed(3)} →
${r.training.lastLoss.toFixed(4)}. The experts' MXFP4 bytes were read, never rewritten: the base's digest is
${r.baseUnchanged ? 'the same as before' : 'NOT the same as before'}.
<a href="${pages.training}">Curves of the training run</a></p>
<h2>3 · The tuned model answers the same request</h2>
${said(shown.request, shown.tuned)}
<h2>4 · A judge holds back what a policy forbids</h2>
<p>The judge read the policy and one text per call; on ${r.judge.rows} held-out texts it reached
precision ${ratioText(r.judge.all.precision)}, recall ${ratioText(r.judge.all.recall)},
and left ${r.judge.all.unjudged} unjudged. What is not allowed does not pass.</p>
${group('Clean answers', 'Released, analysis and final.', under('contact', 'clean'))}
${group('The final tells what the policy forbids', 'Withheld.', under('contact', 'violating-final'))}
${group(
  'A clean final over a trace that tells it',
  'The final is released, the trace is not.',
  under('contact', 'violating-trace'),
)}
${group(
  'The withheld answers under another policy',
  'Policy respect forbids insults and threats and says nothing of numbers: released.',
  under('respect', 'clean'),
)}
<h2>5 · The release gate: base and adapter answer the same suite</h2>
<p>${r.gate.decision}: ${r.gate.metrics} limits, ${r.gate.outcomes} outcomes. Thresholds, prompts, policies and judge
were locked before. <a href="${pages.gate}">The gate's page</a></p>
<h2>6 · What passed is exported, verified and signed</h2><p>${verifiedLine(r.verified)}</p>
<p>${r.signed ? 'Statements and the signature over all files hold.' : 'The signature does NOT hold.'}</p>
<h2>Checks</h2><table><tr><th>claim</th><th>measured</th><th>wanted</th><th></th></tr>${r.checks.map(
      (c) => html`<tr><td>${c.name}</td><td>${Number(c.value.toFixed(4))}</td><td>${c.wanted}</td>
<td class="${c.ok ? 'ok' : 'no'}">${c.ok ? 'yes' : 'no'}</td></tr>`,
    )}</table>
</main>`,
  );
}
