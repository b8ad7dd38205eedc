// Where the fields of a recipe stand: file, line and column, or the --set that gave them.
import { type Document, isMap, isScalar, type LineCounter } from 'yaml';

export type Path = readonly (string | number)[];
export const dotted = (path: Path): string => path.join('.');

/** Where things stand in the YAML text; edits of --set have no line and are named as such. */
export class Positions {
  constructor(
    readonly file: string,
    readonly doc: Document.Parsed,
    readonly lines: LineCounter,
    readonly edits: ReadonlyMap<string, string>,
  ) {}

  /** `file:line:column` of the deepest node on `path` that is there; with `key`, of that key in the map. */
  at(path: Path, key?: string): string {
    const full = (key === undefined ? path : [...path, key]).join('.');
    for (const [edited, text] of this.edits)
      if (full === edited || full.startsWith(`${edited}.`)) return `--set ${text}`;
    for (let depth = path.length; depth >= 0; depth--) {
      const node = depth === 0 ? this.doc.contents : this.doc.getIn(path.slice(0, depth), true);
      const wanted = depth === path.length ? key : path[depth];
      if (isMap(node) && wanted !== undefined) {
        const pair = node.items.find((p) => isScalar(p.key) && String(p.key.value) === String(wanted));
        if (pair && isScalar(pair.key) && pair.key.range) return this.#name(pair.key.range[0]);
      }
      const range = (node as { range?: [number, number, number] | null } | null | undefined)?.range;
      if (range) {
        // A value on the line of its key is best pointed at by the key.
        if (depth > 0 && depth === path.length && key === undefined) {
          const parent = this.doc.getIn(path.slice(0, -1), true) ?? this.doc.contents;
          if (isMap(parent)) return this.at(path.slice(0, -1), String(path[path.length - 1]));
        }
        return this.#name(range[0]);
      }
    }
    return `${this.file}:1:1`;
  }
  #name(offset: number): string {
    const { line, col } = this.lines.linePos(offset);
    return `${this.file}:${line}:${col}`;
  }
}
