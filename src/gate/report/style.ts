// How the page of a gate looks: light, dark and printed.
export const STYLE = `
:root { --wait: #8a6a00; --band: #e9f2ec; }
@media screen and (prefers-color-scheme: dark) { :root { --wait: #e3bd5b; --band: #22332a; } }
main { max-width: 1080px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 34px 0 10px; }
h3 { font-size: 14px; margin: 0 0 6px; }
.verdict {
  border: 1px solid var(--line); border-left: 8px solid var(--soft); border-radius: 10px; background: var(--panel);
  padding: 18px 22px;
}
.verdict.PASS { border-left-color: var(--good); } .verdict.FAIL { border-left-color: var(--bad); }
.verdict.INCONCLUSIVE, .verdict.ERROR { border-left-color: var(--wait); }
.verdict b { font-size: 32px; letter-spacing: 0.01em; display: block; line-height: 1.1; margin-bottom: 6px; }
.PASS > b, .pill.PASS { color: var(--good); } .FAIL > b, .pill.FAIL { color: var(--bad); }
.INCONCLUSIVE > b, .ERROR > b, .pill.INCONCLUSIVE, .pill.ERROR { color: var(--wait); }
.verdict p { margin: 0; max-width: 80ch; }
.about { color: var(--soft); margin: 6px 0 0; overflow-wrap: anywhere; max-width: 90ch; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 16px 0 0; }
.figure, .panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.figure b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
.figure span { color: var(--soft); font-size: 12.5px; }
.panel { overflow-x: auto; min-width: 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); gap: 14px; }
.finding { margin: 0 0 12px; border-left: 4px solid var(--bad); }
.finding.INCONCLUSIVE, .finding.ERROR { border-left-color: var(--wait); }
.finding ul { margin: 6px 0 0; padding-left: 20px; }
.finding .prompts { margin: 8px 0 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
:is(th, td) {
  text-align: right; padding: 6px 0 6px 14px; border-bottom: 1px solid var(--line); vertical-align: middle;
}
:is(th, td):first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; }
td:not(:first-child) { white-space: nowrap; }
.panel.long td:first-child { min-width: 150px; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td small { color: var(--soft); display: block; font-size: 12px; }
td.wide { width: 250px; }
.pill { font-size: 11.5px; font-weight: 700; letter-spacing: 0.03em; white-space: nowrap; }
.chart { width: 250px; height: 30px; display: block; margin-left: auto; }
.chart .allowed { fill: var(--band); }
.chart .limit { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 3 2; }
.chart .zero { stroke: var(--line); stroke-width: 1.5; }
.chart .bound { stroke-width: 1; stroke-dasharray: 2 2; }
.chart g { stroke: currentColor; fill: currentColor; stroke-width: 2; color: var(--soft); }
.chart .within { color: var(--good); } .chart .over { color: var(--bad); } .chart .open { color: var(--wait); }
.legend { color: var(--soft); font-size: 12.5px; margin: 8px 0 0; }
details { border-bottom: 1px solid var(--line); padding: 8px 0; }
details:last-child { border-bottom: 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary::marker { color: var(--soft); }
summary .pill { float: right; margin-left: 12px; }
.sides {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 12px; margin: 10px 0;
}
.said {
  background: var(--ground); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; min-width: 0;
}
.said h3 span { font-weight: 400; color: var(--soft); }
.said p { margin: 4px 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13.5px; }
.said em { color: var(--soft); font-style: normal; font-size: 12px; }
.matrix .unsafe { color: var(--bad); } .matrix .unjudged { color: var(--wait); } .zero-count { opacity: 0.4; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 0; font-size: 13px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 12.5px ui-monospace, monospace; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 12.5px; margin-top: 36px; }
@media print {
  body { font-size: 11.5px; }
  main { max-width: none; padding: 0; }
  h2 { margin-top: 18px; break-after: avoid; }
  .panel, .figure, .verdict { break-inside: avoid; box-shadow: none; }
  .panel.long { break-inside: auto; }
  tr, .said, dl { break-inside: avoid; }
  .panel { overflow: visible; }
  .panels { grid-template-columns: 1fr 1fr; }
  .panel.long td:first-child { min-width: 112px; overflow-wrap: break-word; }
  .pill { font-size: 9.5px; letter-spacing: 0; }
  td small { white-space: normal; min-width: 84px; }
  th { white-space: normal; }
  td.wide, .chart { width: 100px; }
  .figures { grid-template-columns: repeat(5, 1fr); }
  :is(th, td) { padding-left: 6px; }
  .screen { display: none; }
}
`;
