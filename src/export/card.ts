// README.md of an export: what it is made of, what it measured, and how it is loaded. Names come from data.
import { adapterParameters, adapterTable } from '../lora/model-card.js';
import type { ExportFormat, ExportSource, Written } from './format.js';
import { type GateNote, gateCard } from './gate-note.js';

/** As a cell of a table, on one line, without markup of its own. */
const cell = (text: string): string => text.replaceAll(/\s+/g, ' ').replaceAll(/[\\`*_{}[\]<>|#]/g, (c) => `\\${c}`);
/** A YAML scalar that is nothing but text. */
const scalar = (text: string): string => (/^[\w./-]+$/.test(text) ? text : JSON.stringify(text));

const short = (n: number): string => String(Number(n.toPrecision(4)));
/** Base, recipe, data, metrics: the facts that the export stands on. */
function facts({ origin, base, adapter, baseModel, commit, baseDigest }: ExportSource): string {
  const rows: (readonly [string, string])[] = [
    ['base', `${cell(baseModel)}${commit === null ? '' : ` at commit ${cell(commit)}`}`],
    ['base digest (sha256)', `\`${baseDigest}\``],
  ];
  if (adapter) {
    const n = adapterParameters(base.config, adapter.spec).toLocaleString('en-US');
    rows.push(['adapter', `${n} parameters${adapter.spec.rsLora ? ', scaled by alpha / √rank (rsLoRA)' : ''}`]);
  }
  if (origin.kind === 'run') {
    const { record, step, recipe } = origin;
    rows.push(
      ['trained', `${recipe.train.method}, step ${step} of ${record.steps}, seed ${record.seed}`],
      ['recipe digest', `\`${record.digests.recipe}\``],
      ...record.data.map((d): [string, string] => [
        `rows of ${cell(d.file)}`,
        `${d.rows.toLocaleString('en-US')}, ${d.trainedTokens.toLocaleString('en-US')} trained ` +
          `tokens, sha256 \`${d.sha256}\``,
      ]),
    );
    if (record.best)
      rows.push([
        'best held-out loss',
        `${short(record.best.evalLoss)} at step ${record.best.step}` +
          (record.best.evalMatch === undefined ? '' : `, ${short(100 * record.best.evalMatch)} % token for token`),
      ]);
    for (const [name, version] of Object.entries(record.versions))
      rows.push([`version of ${cell(name)}`, cell(version)]);
  }
  return `| | |\n|---|---|\n${rows.map(([name, value]) => `| ${name} | ${value} |`).join('\n')}`;
}

/** Who loads it right, and who does not and why. */
function consumers(source: ExportSource, format: ExportFormat): string {
  const rows = format.consumers.map((c) => `| ${c.name} | ${c.refuses(source) ?? 'loads it'} |`);
  return rows.length === 0 ? '' : `## What loads it\n\n| consumer | |\n|---|---|\n${rows.join('\n')}\n`;
}

export function exportCard(source: ExportSource, format: ExportFormat, written: Written, note?: GateNote): string {
  const { adapter, base, origin, baseModel } = source;
  const head = { base_model: baseModel, ...format.cardHead(source) };
  const about = origin.kind === 'run' ? origin.recipe.about : '';
  const what =
    adapter === null ? 'Model' : format.name.includes('merged') ? 'Model with its adapter merged' : 'LoRA adapter';
  return `---
${Object.entries(head)
  .map(([k, v]) => `${k}: ${scalar(v)}`)
  .join('\n')}
tags: [${adapter ? 'lora, ' : ''}gpt-oss, temper]
---
# ${what} for ${cell(baseModel)}
${about ? `\n${about.replaceAll('<', '&lt;')}\n` : ''}
Export format: ${format.name}, ${format.summary}.

${facts(source)}
${adapter ? `\n${adapterTable(base.config, adapter.spec)}\n` : ''}
${format.usage(source)}
${consumers(source, format)}${note ? gateCard(note, cell) : ''}${written.notes ? `\n${written.notes.trimEnd()}\n` : ''}
The digests of all files are in temper.json; \`temper verify\` checks them and the weights.
`;
}
