// Data in Markdown.

/** In a line: no markup, no link, no mention, no end of a table's cell. */
export const md = (text: string): string =>
  text
    .toWellFormed()
    .replaceAll(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, ' ')
    .replaceAll(/[\\`*_{}[\]()<>#+!|~&@:$^-]/g, (c) => `&#${c.charCodeAt(0)};`);

/** Cells are Markdown already. */
export const mdTable = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
