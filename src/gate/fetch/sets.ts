// Public sets of prompts that a gate can use: where each is, under which licence, what its bytes hash to, and what of a
// row becomes a prompt of a suite. Nothing of them is shipped: whoever wants one fetches it.
export interface SetPrompt {
  readonly id: string;
  readonly prompt: string;
  /** What a suite may slice by. */
  readonly category: string;
  /** Prompts made of one are one cluster. */
  readonly family?: string;
  /** Which of the tests it is for; absent: the only one. */
  readonly test?: string;
  /** What the scorer reads. */
  readonly expect?: Readonly<Record<string, unknown>>;
}
/** A row as its file has it: cells by the names of the columns. */
export type SetRow = Readonly<Record<string, string>>;
export interface SetTest {
  /** Also the name of its file of prompts. */
  readonly name: string;
  readonly kind: string;
  readonly scorer: 'policy' | 'refusal' | 'monitor';
}
export interface PublicSet {
  readonly name: string;
  readonly about: string;
  readonly licence: string;
  /** Of the file; of the repository where `pinned` is null. */
  readonly url: string;
  /** The file as it was when this was written; null: no such file is named, it is given as a copy. */
  readonly pinned: { readonly sha256: string; readonly bytes: number } | null;
  /** How one comes by the copy. */
  readonly copy?: string;
  readonly form: 'csv' | 'json' | 'jsonl';
  /** Columns of a file without a line that names them. */
  readonly columns?: readonly string[];
  readonly tests: readonly SetTest[];
  /** null: the row is no prompt. */
  readonly prompt: (row: SetRow, index: number) => SetPrompt | null;
}

const raw = (repo: string, commit: string, path: string): string =>
  `https://raw.githubusercontent.com/${repo}/${commit}/${path}`;
const harm = (name: string, kind = 'harm'): readonly SetTest[] => [{ name, kind, scorer: 'policy' }];
const numbered = (name: string, index: number): string => `${name}-${String(index + 1).padStart(4, '0')}`;
/** As a part of an id, which is short. */
const worded = (text: string): string => text.replaceAll(/\s+/g, '-').slice(0, 60);
const ADVERSARIA = ['busycalibrating/AdversariaLLM', 'f970939273ea17b491fadf6001fddc36ed3ae3ff'] as const;

export const PUBLIC_SETS: readonly PublicSet[] = [
  {
    name: 'xstest',
    about: 'XSTest: 250 harmless prompts that look harmful, and 200 that are, of 18 types',
    licence: 'CC-BY-4.0',
    url: raw('paul-rottger/exaggerated-safety', 'd7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d', 'xstest_prompts.csv'),
    pinned: {
      sha256: '11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a',
      bytes: 38_719,
    },
    form: 'csv',
    tests: [
      { name: 'xstest-safe', kind: 'over-refusal', scorer: 'refusal' },
      { name: 'xstest-unsafe', kind: 'harm', scorer: 'policy' },
    ],
    prompt: ({ id = '', prompt = '', type = '', label = '' }) => ({
      id: `xstest-${id}`,
      prompt,
      category: type.replace(/^contrast_/, ''),
      test: label === 'safe' ? 'xstest-safe' : 'xstest-unsafe',
    }),
  },
  {
    name: 'ailuminate',
    about: 'AILuminate 1.0 demo, English: 1,200 prompts of 12 hazards, half of them by skilled users',
    licence: 'CC-BY-4.0',
    url: raw(
      'mlcommons/ailuminate',
      '769cc2be9d20c8d4fb26ce53b68865ed41dfb8e2',
      'airr_official_1.0_demo_en_us_prompt_set_release.csv',
    ),
    pinned: {
      sha256: '63e2b654325c5405096fabf28ef5f057b0ad674904b1839fd1f52b523e324d02',
      bytes: 322_200,
    },
    form: 'csv',
    tests: harm('ailuminate'),
    prompt: ({ release_prompt_id: id = '', prompt_text: prompt = '', hazard = '' }) => ({
      id,
      prompt,
      category: hazard,
    }),
  },
  {
    name: 'harmbench',
    about: 'HarmBench, text: 400 behaviours; those with a context have it before the question',
    licence: 'MIT (centerforaisafety/HarmBench; the copy says none)',
    url: raw(...ADVERSARIA, 'data/behavior_datasets/harmbench_behaviors_text_all.csv'),
    pinned: {
      sha256: '2745611872be3b2eab141e39bb328b8c1140dc3cd8d0a49da6174260d9ccbfb9',
      bytes: 198_374,
    },
    form: 'csv',
    tests: harm('harmbench'),
    prompt: ({ Behavior = '', ContextString = '', SemanticCategory = '', BehaviorID = '' }) => ({
      id: BehaviorID,
      prompt: ContextString === '' ? Behavior : `${ContextString}\n\n---\n\n${Behavior}`,
      category: SemanticCategory,
    }),
  },
  {
    name: 'strongreject',
    about: 'StrongREJECT: 313 requests of 6 categories',
    licence: 'MIT (alexandrasouly/strongreject; the copy says none)',
    url: raw(...ADVERSARIA, 'data/behavior_datasets/strongreject_dataset.csv'),
    pinned: {
      sha256: '4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381',
      bytes: 56_359,
    },
    form: 'csv',
    tests: harm('strongreject'),
    prompt: ({ category = '', forbidden_prompt: prompt = '' }, i) => ({
      id: numbered('strongreject', i),
      prompt,
      category,
    }),
  },
  {
    name: 'advbench',
    about: 'AdvBench: 520 harmful behaviours; old, and known to many models',
    licence: 'MIT',
    url: raw(
      'LLM-Tuning-Safety/LLMs-Finetuning-Safety',
      '8a3b38f11be1c3829e2b0ed379d3661ebc84e7db',
      'gpt-3.5/data/harmful_behaviors.csv',
    ),
    pinned: {
      sha256: 'ddbbd16619070d1ddba479dda1acc603abc1a222d797fe015f20669a996d7388',
      bytes: 38_512,
    },
    form: 'csv',
    columns: ['prompt'],
    tests: harm('advbench'),
    prompt: ({ prompt = '' }, i) => ({ id: numbered('advbench', i), prompt, category: 'all' }),
  },
  {
    name: 'jailbreakbench',
    about: 'JailbreakBench artifacts, manual jailbreaks: 100 behaviours in their wrapping',
    licence: 'MIT',
    url: raw(
      'JailbreakBench/artifacts',
      '909e68c01d94222b8ad2e397a017e2e12e2adb73',
      'attack-artifacts/JBC/manual/gpt-3.5-turbo-1106.json',
    ),
    pinned: {
      sha256: '5999b8f2fc5e85fd4f7d6553abaeaa66f2dc10c5354faa41622e511c08eab871',
      bytes: 241_037,
    },
    form: 'json',
    tests: harm('jailbreakbench', 'jailbreak'),
    prompt: ({ index = '', prompt = '', category = '' }) =>
      prompt === '' ? null : { id: `jailbreakbench-${index}`, prompt, category },
  },
  {
    name: 'monitorability',
    about: 'openai/monitorability-evals, interventions: questions without and with a planted cue, one file of seven',
    licence: 'Apache-2.0 as reported; read the LICENSE of your clone',
    url: 'https://github.com/openai/monitorability-evals',
    pinned: null,
    copy: 'clone it, unpack its environments, and give one of environments/intervention/*.jsonl with --from FILE',
    form: 'jsonl',
    tests: [{ name: 'monitored', kind: 'monitorability', scorer: 'monitor' }],
    prompt: ({ id = '', problem = '', type = '', category = '' }) =>
      type !== 'perturbed' && type !== 'unperturbed'
        ? null
        : {
            // One question may come with cues of several categories.
            id: [id, category, type].map(worded).join('/'),
            prompt: problem,
            category,
            family: id,
            expect: { covert: type === 'perturbed' },
          },
  },
];
export const publicSet = (name: string): PublicSet | undefined => PUBLIC_SETS.find((s) => s.name === name);
