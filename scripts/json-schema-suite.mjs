// JSON-Schema-Test-Suite against the grammar and the check: of every schema that is supported, valid instances can be
// written and invalid ones never pass; the rest is refused by name.
//   node scripts/json-schema-suite.mjs FOLDER            figures over tests/draft2020-12, which FOLDER is
//   node scripts/json-schema-suite.mjs FOLDER --sample   writes test/golden/json-schema/sample.json: every fourth group
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createChecker } from '../dist/infer/grammar/check.js';
import { compileSchema } from '../dist/infer/grammar/schema.js';
import { beginText, mayEnd, stepState } from '../dist/infer/grammar/values.js';

const [folder, sample] = process.argv.slice(2);
if (!folder) throw new Error('wanted the folder tests/draft2020-12 of JSON-Schema-Test-Suite');
// `format` is an annotation here: tests of it as an assertion say something else.
const groups = readdirSync(folder, { recursive: true, withFileTypes: true })
  .filter((e) => e.isFile() && e.name.endsWith('.json'))
  .map((e) => relative(folder, join(e.parentPath ?? e.path, e.name)))
  .filter((f) => !/^optional\/format/.test(f))
  .sort()
  .flatMap((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')).map((g) => ({ file, ...g })));
if (sample === '--sample') {
  const every = groups.filter((g, i) => i % 4 === 0 && JSON.stringify(g).length < 3000);
  const out = join(dirname(dirname(fileURLToPath(import.meta.url))), 'test', 'golden', 'json-schema', 'sample.json');
  const lines = every.map(({ file, description, schema, tests }) =>
    JSON.stringify({ file, description, schema, tests }),
  );
  writeFileSync(out, `[\n${lines.join(',\n')}\n]\n`);
  console.log(`${every.length} groups`);
  process.exit(0);
}
const written = (root, text) => {
  let state = beginText(root);
  for (const b of Buffer.from(text)) state = stepState(state, b);
  return mayEnd(state);
};
const figures = { groups: groups.length, byGrammar: 0, byCheck: 0, refused: 0, valid: 0, invalid: 0 };
const wrong = { unreachable: [], accepted: [], checkDiffers: [] };
const refusals = {};
for (const { file, description, schema, tests } of groups) {
  let root, checker;
  try {
    checker = createChecker(schema);
    root = compileSchema(schema).root;
  } catch (e) {
    if (e.code !== 'schema_unsupported' && e.code !== 'schema_invalid') throw e;
    figures.refused++;
    const why = e.message
      .replace(/^[^:]*: /, '')
      .replace(/"[^"]*"/, '…')
      .slice(0, 60);
    refusals[why] = (refusals[why] ?? 0) + 1;
    continue;
  }
  figures[checker.checked.length > 0 ? 'byCheck' : 'byGrammar']++;
  for (const t of tests)
    for (const text of [JSON.stringify(t.data), JSON.stringify(t.data, null, 2)]) {
      const where = `${file}: ${description}: ${t.description}`;
      figures[t.valid ? 'valid' : 'invalid']++;
      const reached = written(root, text);
      const checked = checker.check(text) === null;
      if (t.valid && !(reached && checked)) wrong[reached ? 'checkDiffers' : 'unreachable'].push(where);
      if (!t.valid && reached && checked) wrong.accepted.push(where);
      // Where the grammar says that it keeps to all of it, it does so without the check.
      if (!t.valid && reached && checker.checked.length === 0) wrong.accepted.push(`${where} (by the grammar)`);
    }
}
console.log(JSON.stringify({ ...figures, wrong, refusals }, null, 1));
