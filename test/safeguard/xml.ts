// A strict reader of the XML that reports are: elements and attributes, no text, no entity but those of XML itself.
export interface XmlElement {
  readonly name: string;
  readonly parent: string;
  readonly attributes: Readonly<Record<string, string>>;
}
const NAMED: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };
const decoded = (text: string): string => {
  if (/[<]|&(?!(?:amp|lt|gt|quot|apos|#\d+);)/.test(text)) throw new Error(`not escaped: ${text}`);
  return text.replaceAll(/&(#?)(\w+);/g, (_, number: string, name: string) =>
    number ? String.fromCodePoint(Number(name)) : (NAMED[name] as string),
  );
};

/** Elements in their order. @throws {Error} not well-formed */
export function elementsOf(text: string): readonly XmlElement[] {
  const head = '<?xml version="1.0" encoding="UTF-8"?>';
  if (!text.startsWith(head)) throw new Error('no declaration');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what XML 1.0 cannot hold
  if (/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/.test(text) || !text.isWellFormed())
    throw new Error('a character that XML cannot hold');
  const found: XmlElement[] = [];
  const open: string[] = [];
  let rest = text.slice(head.length);
  for (;;) {
    rest = rest.trimStart();
    if (rest === '') break;
    const tag = /^<(\/?)([a-z]+)((?:\s+[a-z]+="[^"<]*")*)\s*(\/?)>/.exec(rest);
    if (!tag) throw new Error(`no tag: ${rest.slice(0, 60)}`);
    rest = rest.slice(tag[0].length);
    const [, close, name = '', list = '', empty] = tag;
    if (close) {
      if (open.pop() !== name) throw new Error(`</${name}> closes nothing`);
      continue;
    }
    if (open.length === 0 && found.length > 0) throw new Error('two roots');
    const attributes: Record<string, string> = {};
    for (const [, key = '', value = ''] of list.matchAll(/([a-z]+)="([^"]*)"/g)) {
      if (key in attributes) throw new Error(`${key} twice`);
      attributes[key] = decoded(value);
    }
    found.push({ name, parent: open.at(-1) ?? '', attributes });
    if (!empty) open.push(name);
  }
  if (open.length > 0) throw new Error(`<${open.at(-1)}> is open`);
  return found;
}
