// Text to compare tokenizers on, made from what every checkout has: sources and documentation in node_modules, Node's
// own locale data (names of places, languages, currencies, dates) with sentences in nine languages, and generated edge
// cases. Deterministic.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Park–Miller; the same text on every machine. */
export function random(seed) {
  let state = seed % 2147483647 || 1;
  const next = () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
  return { next, below: (n) => Math.floor(next() * n), pick: (list) => list[Math.floor(next() * list.length)] };
}

const SENTENCES = {
  en: [
    "It's been raining since Tuesday, and we've nowhere to go.",
    'The committee will publish its findings before the end of the year.',
    "I'd rather you didn't; they'll notice that she's gone.",
    'How many of them did you count?',
    'Nothing was found, although everybody had looked twice.',
    'Please send 1,250 copies to the address below.',
  ],
  es: [
    '¿Dónde está la biblioteca más cercana?',
    'Ayer llovió toda la tarde y nadie salió de casa.',
    'El niño corrió hacia su abuela, que lo esperaba en la puerta.',
    'Según el informe, la producción aumentó un 3,5 % durante el último año.',
    '¡Qué alegría volver a verte después de tanto tiempo!',
    'Mañana compraremos pan, queso y aceite de oliva.',
  ],
  fr: [
    "L'été dernier, nous avons traversé les Alpes à pied.",
    "Qu'est-ce que c'est que cette histoire ?",
    'Le garçon a mangé une pomme près de la fenêtre.',
    "D'après les chercheurs, l'océan absorbe une grande partie de la chaleur.",
    'Il faudrait que vous arriviez avant huit heures.',
    'Où est passée ma clé ? Je la cherche partout.',
  ],
  de: [
    'Die Straßenbahn fährt heute wegen Bauarbeiten nicht.',
    'Könnten Sie mir bitte sagen, wie spät es ist?',
    'Der Bundestag hat über die Änderung des Gesetzes abgestimmt.',
    'Im Frühling blühen überall die Kirschbäume.',
    'Rechtsschutzversicherungsgesellschaften gibt es viele.',
    'Wir hätten früher losfahren müssen, sagte sie leise.',
  ],
  ru: [
    'Сегодня утром выпал первый снег.',
    'Она спросила, когда отправляется следующий поезд.',
    'По данным исследования, население города выросло на 12 процентов.',
    'Мы долго шли по берегу реки и молчали.',
    'Какую книгу ты сейчас читаешь?',
    'Учёные обнаружили новый вид бабочек в горах Алтая.',
  ],
  ar: [
    'ذهب الطالب إلى المدرسة في الصباح الباكر.',
    'ما هي عاصمة هذا البلد؟',
    'قرأتُ كتابًا عن تاريخ العلوم، وكان ممتعًا جدًّا.',
    'تشرق الشمس من الشرق وتغرب في الغرب.',
    'يعمل والدي طبيبًا في مستشفى المدينة.',
    'سنسافر غدًا إن شاء الله بالقطار.',
  ],
  hi: [
    'आज मौसम बहुत अच्छा है।',
    'क्या आप मुझे स्टेशन का रास्ता बता सकते हैं?',
    'वैज्ञानिकों ने एक नई दवा की खोज की है।',
    'बच्चे बगीचे में खेल रहे हैं और माँ खाना बना रही है।',
    'पिछले वर्ष की तुलना में उत्पादन बढ़ा है।',
    'मुझे हिन्दी में लिखी कविताएँ पढ़ना पसंद है।',
  ],
  zh: [
    '今天天气很好，我们一起去公园散步吧。',
    '他说明天可能会下雨，所以请带上雨伞。',
    '研究人员发现，这种材料在低温下具有超导性。',
    '请问最近的地铁站在哪里？',
    '中国的高速铁路总里程已经超过四万公里。',
    '她把那封信读了三遍，然后放进了抽屉里。',
  ],
  ja: [
    '昨日の夜、友達と映画を見に行きました。',
    'すみません、駅まではどう行けばいいですか。',
    '研究チームは新しい触媒を開発したと発表した。',
    'コーヒーを一杯いただけますか？',
    '春になると、川沿いの桜がいっせいに咲き始める。',
    'この問題を解決するには、もう少し時間が必要です。',
  ],
  ko: [
    '오늘은 날씨가 참 좋네요.',
    '가장 가까운 지하철역이 어디에 있습니까?',
    '연구진은 새로운 치료법을 개발했다고 밝혔다.',
    '어제 저녁에 친구와 함께 영화를 보았습니다.',
    '이 문제를 해결하려면 시간이 더 필요합니다.',
    '할머니께서 맛있는 김치를 담그셨어요.',
  ],
};

/** The nine languages besides English. */
export const LANGUAGES = Object.keys(SENTENCES).filter((l) => l !== 'en');

function localeWords(locale) {
  const words = [];
  const names = (type, codes) => {
    const d = new Intl.DisplayNames(locale, { type, fallback: 'none' });
    for (const c of codes) {
      const n = d.of(c);
      if (n) words.push(n);
    }
  };
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';
  const pairs = [...letters].flatMap((a) => [...letters].map((b) => a + b));
  names('region', pairs);
  names(
    'language',
    pairs.map((p) => p.toLowerCase()),
  );
  names('currency', Intl.supportedValuesOf('currency'));
  for (let month = 0; month < 12; month++) {
    for (const dateStyle of /** @type {const} */ (['full', 'medium']))
      words.push(
        new Intl.DateTimeFormat(locale, { dateStyle, timeZone: 'UTC' }).format(
          new Date(Date.UTC(1900 + month * 11, month, month * 2 + 1)),
        ),
      );
  }
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });
  const units = /** @type {const} */ (['year', 'quarter', 'month', 'week', 'day', 'hour', 'minute', 'second']);
  for (const unit of units) for (const n of [-5, -2, -1, 0, 1, 2, 11]) words.push(relative.format(n, unit));
  const list = new Intl.ListFormat(locale);
  for (let i = 0; i + 3 < 600 && i + 3 < words.length; i += 3) words.push(list.format(words.slice(i, i + 3)));
  return words;
}

/** About `bytes` of text in one language. */
export function languageText(locale, bytes, seed = 7) {
  const r = random(seed + locale.charCodeAt(0) * 31 + locale.charCodeAt(1));
  const words = localeWords(locale);
  const number = new Intl.NumberFormat(locale);
  const spaced = locale !== 'zh' && locale !== 'ja';
  const out = [];
  for (let size = 0; size < bytes; ) {
    let s;
    const kind = r.below(10);
    if (kind < 4) s = r.pick(SENTENCES[locale]);
    else if (kind < 9)
      s =
        Array.from({ length: 2 + r.below(8) }, () => r.pick(words)).join(
          spaced ? r.pick([' ', ' ', ', ']) : r.pick(['', '', '、', '的', 'の']),
        ) + r.pick(spaced ? ['.', '!', ' —', ';', ' …'] : ['。', '！', '」']);
    else s = `${r.pick(words)}: ${number.format(r.below(1e9) / 10 ** r.below(4))}`;
    s += r.pick([' ', ' ', spaced ? ' ' : '', '\n', '\n\n', '\r\n', '\t']);
    out.push(s);
    size += Buffer.byteLength(s);
  }
  return out.join('');
}

function filesUnder(folder, pattern, out) {
  for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) filesUnder(path, pattern, out);
    else if (entry.isFile() && pattern.test(entry.name)) out.push(path);
  }
  return out;
}

/** Sources or documentation of the installed packages, at most 256 KB of each file. */
export function packageText(root, pattern, bytes) {
  const out = [];
  let size = 0;
  for (const path of filesUnder(join(root, 'node_modules'), pattern, [])) {
    if (size >= bytes) break;
    const text = readFileSync(path, 'utf8').slice(0, 256 * 1024);
    out.push(text);
    size += Buffer.byteLength(text);
  }
  return out;
}

const EDGES = [
  "'s",
  "'S",
  "'ſ",
  "'t",
  "'RE",
  "'Ve",
  "'ll",
  "'lL",
  "'d",
  "'m",
  "''s",
  '’s',
  ' ',
  '  ',
  '\n',
  '\r\n',
  ' \n ',
  '\t',
  '\u00a0',
  '\u0085',
  '\u2028',
  '\u3000',
  '\ufeff',
  '/',
  '//',
  '\n/',
  '!/\n',
  '123',
  '1234567',
  '٣٤٥',
  'Ⅷ',
  '½',
  'ǅ',
  'ʰ',
  '\u0301',
  'e\u0301',
  '\u0301\u0301',
  'İ',
  'ß',
  'ﬁ',
  '中',
  'か',
  '가',
  'ก',
  'ि',
  '\u200d',
  '👩‍👩‍👧',
  '🇩🇪',
  '\u{1F600}',
  '\u{E0001}',
  '\uffff',
  '\u{10ffff}',
  '\u0000',
  '\ud800',
  '\udc00',
  '<|end|>',
  '<|start|>assistant',
  '_',
  '-',
  '=',
  '"',
  '{',
  'A',
  'b',
  'ABC',
  'abC',
  'AbCdEf',
  'x',
];

/** Short strings that sit on the pattern's edges: every kind of character beside every other. */
export function edgeCases(count, seed = 11) {
  const r = random(seed);
  return Array.from({ length: count }, () => {
    const kind = r.below(4);
    if (kind === 0) return Array.from({ length: 1 + r.below(12) }, () => r.pick(EDGES)).join('');
    if (kind === 1) {
      const letters = r.pick([
        'ab',
        'aA',
        "aAb'",
        "eE '",
        'не',
        'ab中',
        '中国人',
        'あのに',
        'กา',
        '01a',
        ' \n',
        'aaab',
      ]);
      return Array.from({ length: 1 + r.below(200) }, () => r.pick([...letters])).join('');
    }
    if (kind === 2)
      return Array.from({ length: 1 + r.below(40) }, () =>
        String.fromCodePoint(r.below(r.pick([0x80, 0x800, 0x3000, 0x10000, 0x110000]))),
      ).join('');
    return Array.from({ length: 1 + r.below(30) }, () =>
      r.pick([
        r.pick(EDGES),
        String.fromCodePoint(0x4e00 + r.below(0x5000)),
        String.fromCodePoint(0x400 + r.below(0x200)),
        String.fromCharCode(32 + r.below(95)),
      ]),
    ).join('');
  });
}

/** Pieces long enough for the heap: letters without a break. */
export function longPieces(count, seed = 13) {
  const r = random(seed);
  return Array.from({ length: count }, () => {
    const letters = [
      ...r.pick([
        'ab',
        'abcdefghijklmnopqrstuvwxyz',
        'etaoinshrdlu',
        'абвгдеж',
        '中国人民大',
        'あいうえおかきくけこ',
        'กขคง',
        'aé中',
      ]),
    ];
    return Array.from({ length: 97 + r.below(2000) }, () => r.pick(letters)).join('');
  });
}

/** The whole comparison: [name, texts] per part. @returns {[string, string[]][]} */
export function corpus(root, scale = 1) {
  return [
    ['english', [...packageText(root, /\.md$|^LICENSE|\.txt$/, 1.5e6 * scale), languageText('en', 0.5e6 * scale)]],
    ['code', packageText(root, /\.(?:js|ts|mjs|cjs|json|h|cpp)$/, 4e6 * scale)],
    ...LANGUAGES.map((l) => /** @type {[string, string[]]} */ ([l, [languageText(l, 0.7e6 * scale)]])),
    ['edges', edgeCases(20_000 * scale)],
    ['long', longPieces(200 * scale)],
  ];
}
