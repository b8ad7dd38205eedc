// HTML that is safe by construction: what is put into an `html` template is escaped unless it is HTML itself.

/** Markup, made by `html` or vouched for by `raw`. */
export class Html {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}
/** null, undefined and false leave nothing; a list is its items one after the other. */
export type Value = string | number | Html | null | undefined | false | readonly Value[];

const escaped = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const render = (value: Value): string => {
  if (value instanceof Html) return value.text;
  if (typeof value === 'object' && value !== null) return value.map(render).join('');
  return value === null || value === undefined || value === false ? '' : escaped(String(value));
};

/** For text and for attribute values in double quotes; not inside script or style elements. */
export const html = (strings: TemplateStringsArray, ...values: readonly Value[]): Html =>
  new Html(strings.reduce((out, s, i) => out + render(values[i - 1]) + s));
/** Markup of our own, as it is. */
export const raw = (text: string): Html => new Html(text);
/** A script element. JSON in `data` becomes constants of these names; no value in it can end the element. */
export function script(code: string, data: Readonly<Record<string, unknown>> = {}): Html {
  const constants = Object.entries(data).map(
    ([name, value]) => `const ${name} = ${JSON.stringify(value).replaceAll('<', '\\u003c')};`,
  );
  return raw(`<script>${constants.join('')}${code.replaceAll('</', '<\\/')}</script>`);
}

/** A whole page in one file: readable offline, in light, in dark and on paper, which is light whoever prints it. */
export const page = (title: string, style: string, body: Html): string =>
  html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${raw(COLOURS + style)}</style></head>
<body>${body}</body></html>
`.text;

/** Colours of every page; a page says where it uses them. */
export const COLOURS = `
:root {
  --ground: #fbfaf8; --panel: #ffffff; --ink: #1d1c1a; --soft: #6f6b64; --line: #e5e1da; --accent: #b4481e;
  --good: #2e7d4f; --bad: #b4311e; color-scheme: light dark;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #161513; --panel: #1f1d1a; --ink: #ece8e1; --soft: #9d978c; --line: #34312c; --accent: #f0895a;
    --good: #7cc79a; --bad: #f08a74;
  }
}
@media print { :root { color-scheme: light; --ground: #ffffff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
`;
