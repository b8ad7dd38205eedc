// The export formats there are. To add one: its file here, and its line in this list.
import type { ExportFormat } from '../format.js';
import { gguf, ggufF32 } from './gguf.js';
import { ggufLora } from './gguf-lora.js';
import { mergedBf16 } from './merged-bf16.js';
import { mergedMxfp4 } from './merged-mxfp4.js';
import { peft } from './peft.js';

export const FORMATS: readonly ExportFormat[] = [peft, mergedBf16, mergedMxfp4, gguf, ggufF32, ggufLora];
