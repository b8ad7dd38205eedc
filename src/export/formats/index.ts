// The export formats there are. To add one: its file here, and its line in this list.
import type { ExportFormat } from '../format.js';
import { gguf, ggufF32 } from './gguf.js';
import { ggufLora } from './gguf-lora.js';
import { peft } from './peft.js';

export const FORMATS: readonly ExportFormat[] = [peft, gguf, ggufF32, ggufLora];
