import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { html, page, raw, script } from '../../src/report/html.js';

it('escapes text, not HTML, and leaves nothing out but nothing', () => {
  const bad = `<b a="1" c='2'>&`;
  expect(html`<p title="${bad}">${bad}</p>`.text).toBe(
    '<p title="&#60;b a=&#34;1&#34; c=&#39;2&#39;&#62;&#38;">&#60;b a=&#34;1&#34; c=&#39;2&#39;&#62;&#38;</p>',
  );
  expect(html`${[html`<i>${'<'}</i>`, 'a', 0, null, undefined, false]}${raw('<hr>')}`.text).toBe('<i>&#60;</i>a0<hr>');
});

it('no text can begin or end an element, wherever it stands', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const inner = html`${text}`.text;
      expect(inner).not.toMatch(/[<>"']/);
      expect(inner.replaceAll(/&#(\d+);/g, (_, code) => String.fromCharCode(Number(code)))).toBe(text);
      const own = script('done(text);', { text });
      expect(own.text.match(/<\/script/g)).toHaveLength(1);
      let got: unknown;
      runInNewContext(own.text.slice('<script>'.length, -'</script>'.length), { done: (t: unknown) => (got = t) });
      expect(got).toBe(text);
    }),
  );
});

it('a page is one document', () => {
  const text = page('a < b', 'p { margin: 0; }', html`<p>x</p>`);
  expect(text).toMatch(/^<!doctype html>\n<html lang="en">/);
  expect(text).toContain('<title>a &#60; b</title>');
  expect(text).toContain('p { margin: 0; }');
});
