// The tree against the definitions of RFC 6962, written out plainly, and every proof of every small tree.
import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { canonicalJson } from '../../src/verdict-log/canonical.js';
import {
  Collector,
  consistencyRanges,
  Frontier,
  inclusionRanges,
  isConsistent,
  isIncluded,
  leafHash,
} from '../../src/verdict-log/merkle.js';

const sha = (...parts: readonly Uint8Array[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest();
/** MTH of RFC 6962, section 2.1, as it stands there. */
function plainRoot(leaves: readonly string[]): Buffer {
  if (leaves.length === 0) return sha();
  if (leaves.length === 1) return sha(Buffer.of(0), Buffer.from(leaves[0] as string));
  let k = 1;
  while (2 * k < leaves.length) k *= 2;
  return sha(Buffer.of(1), plainRoot(leaves.slice(0, k)), plainRoot(leaves.slice(k)));
}
const LEAVES = Array.from({ length: 40 }, (_, i) => `leaf ${i}`);
const treeOf = (size: number, collector?: Collector): Frontier => {
  const tree = new Frontier();
  for (const leaf of LEAVES.slice(0, size)) tree.push(leafHash(leaf), collector?.node);
  return tree;
};

it('roots are those of the definition, for every size', () => {
  for (let n = 0; n <= LEAVES.length; n++) expect(treeOf(n).root()).toBe(plainRoot(LEAVES.slice(0, n)).toString('hex'));
});

it('the published vectors of RFC 6962 trees', () => {
  // Leaves and roots as certificate-transparency's own tests have them.
  const inputs = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'];
  const roots = [
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
    '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
  ];
  const tree = new Frontier();
  for (const [i, input] of inputs.entries()) {
    tree.push(leafHash(Buffer.from(input, 'hex')));
    expect(tree.root()).toBe(roots[i]);
  }
});

it('every leaf of every tree is proven, and nothing else is', () => {
  let checked = 0;
  for (let size = 1; size <= LEAVES.length; size++)
    for (let index = 0; index < size; index++) {
      const collector = new Collector(inclusionRanges(index, { lo: 0, hi: size }));
      const tree = treeOf(size, collector);
      const path = collector.hashes(tree);
      const leaf = leafHash(LEAVES[index] as string);
      const root = tree.root();
      expect(isIncluded(leaf, index, size, path, root)).toBe(true);
      checked++;
      expect(isIncluded(leafHash('another'), index, size, path, root)).toBe(false);
      expect(isIncluded(leaf, index + 1, size, path, root)).toBe(false);
      expect(isIncluded(leaf, index, size, [...path, root], root)).toBe(false);
      if (path.length > 0) expect(isIncluded(leaf, index, size, path.slice(1), root)).toBe(false);
    }
  expect(checked).toBe((LEAVES.length * (LEAVES.length + 1)) / 2);
});

it('every tree is proven to be the beginning of every larger one, and no other is', () => {
  for (let second = 1; second <= LEAVES.length; second++)
    for (let first = 1; first <= second; first++) {
      const collector = new Collector(first === second ? [] : consistencyRanges(first, second));
      const tree = treeOf(second, collector);
      const path = collector.hashes(tree);
      const [a, b] = [treeOf(first).root(), tree.root()];
      expect(isConsistent(first, second, path, a, b)).toBe(true);
      expect(isConsistent(first, second, path, leafHash('x'), b)).toBe(false);
      expect(isConsistent(first, second, path, a, leafHash('x'))).toBe(false);
      if (first < second && first > 1) expect(isConsistent(first - 1, second, path, a, b)).toBe(false);
      if (path.length > 0) expect(isConsistent(first, second, path.slice(1), a, b)).toBe(false);
    }
});

it('what a proof needs is found from any place before its leaf on', () => {
  for (let size = 2; size <= 20; size++)
    for (let index = 0; index < size; index++)
      for (let from = 0; from <= index; from++) {
        const collector = new Collector(inclusionRanges(index, { lo: 0, hi: size }));
        const tree = treeOf(from);
        collector.seed(tree);
        for (const leaf of LEAVES.slice(from, size)) tree.push(leafHash(leaf), collector.node);
        expect(isIncluded(leafHash(LEAVES[index] as string), index, size, collector.hashes(tree), tree.root())).toBe(
          true,
        );
      }
});

it('canonical JSON is that of RFC 8785', () => {
  // Keys by UTF-16 units; the example of section 3.2.3, and numbers of section 3.2.2.3.
  const value = {
    '\u20ac': 'Euro',
    '\r': 'CR',
    '\ufb33': 'Dalet',
    1: 'One',
    '\u{1f600}': 'Smiley',
    '\u0080': 'C',
    '\u00f6': 'o',
  };
  expect(Object.values(JSON.parse(canonicalJson(value)) as object)).toHaveLength(7);
  expect(canonicalJson(value)).toBe(
    '{"\\r":"CR","1":"One","\u0080":"C","\u00f6":"o","\u20ac":"Euro","\u{1f600}":"Smiley","\ufb33":"Dalet"}',
  );
  expect(canonicalJson([333333333.3333333, 1e30, 4.5, 2e-3, 1e-27, -0, null, true])).toBe(
    '[333333333.3333333,1e+30,4.5,0.002,1e-27,0,null,true]',
  );
  expect(canonicalJson({ b: undefined, a: ['\u000f\n"\\'] })).toBe('{"a":["\\u000f\\n\\"\\\\"]}');
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, '\ud800'])
    expect(() => canonicalJson([bad])).toThrow(TypeError);
});
