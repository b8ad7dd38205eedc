// The formats a dataset file may have. To add one: its file here, one import, one entry.
import type { Format } from '../format.js';
import { alpaca } from './alpaca.js';
import { chat } from './chat.js';
import { completion } from './completion.js';
import { harmony } from './harmony.js';
import { preference } from './preference.js';
import { sharegpt } from './sharegpt.js';
import { text } from './text.js';
import { tokens } from './tokens.js';

export const FORMATS: readonly Format[] = [
  chat as Format,
  sharegpt as Format,
  alpaca as Format,
  completion as Format,
  harmony as Format,
  tokens as Format,
  text as Format,
  preference as Format,
];
