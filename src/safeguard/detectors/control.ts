// Spellings of control tokens: text that a server which templates text, or a tokenizer that parses it, takes for
// markup. Harmony's own, and those of other families of models.
import { type Detector, gateOf, type Report } from './detector.js';

const FAMILIES: Readonly<Record<string, string>> = {
  harmony:
    'start end message channel constrain return call startoftext endoftext endofprompt refusal ' +
    'analysis commentary final',
  chatml: 'im_start im_end im_sep',
  llama:
    'begin_of_text end_of_text start_header_id end_header_id eot_id eom_id python_tag header_start header_end eot ' +
    'eom finetune_right_pad_id finetune_right_pad step_id image text_post_train_reserved_special_token',
  phi: 'system user assistant tool tool_call tool_response placeholder1 dummy_85',
  qwen: 'fim_prefix fim_middle fim_suffix fim_pad repo_name file_sep vision_start vision_end object_ref_start',
  cohere:
    'start_of_turn_token end_of_turn_token user_token chatbot_token system_token start_thinking end_thinking ' +
    'start_response end_response start_action end_action',
  deepseek:
    'begin_of_sentence end_of_sentence tool_calls_begin tool_calls_end tool_call_begin tool_call_end tool_sep ' +
    'tool_outputs_begin tool_outputs_end fim_hole fim_begin fim_end',
  glm: 'observation begin_of_image end_of_image sop eop',
  kimi:
    'im_user im_assistant im_system im_middle tool_calls_section_begin tool_calls_section_end ' +
    'tool_call_argument_begin media_begin media_content media_end media_pad',
  granite: 'start_of_role end_of_role start_of_plugin end_of_plugin start_of_cite end_of_cite',
  internlm: 'action_start action_end interpreter plugin',
};
const NAMES = new Map(
  Object.entries(FAMILIES).flatMap(([family, names]) => names.split(' ').map((name) => [name, family] as const)),
);
const MAX_NAME = 64;

/** `<|name|>`, `i` at its `<`. */
function piped(text: string, i: number, report: Report): void {
  let end = i + 2;
  while (end < i + 2 + MAX_NAME) {
    const c = text.charCodeAt(end);
    if (!((c >= 48 && c <= 57) || (c >= 65 && c <= 90) || c === 95 || (c >= 97 && c <= 122))) break;
    end++;
  }
  if (end === i + 2 || !text.startsWith('|>', end)) return;
  const name = text.slice(i + 2, end).toLowerCase();
  const family = /^reserved_[0-9]+$/.test(name)
    ? 'harmony'
    : /^reserved_special_token_[0-9]+$/.test(name)
      ? 'llama'
      : NAMES.get(name);
  if (family !== undefined) report(family, i, end + 2);
}

/** Written out, by their first sign. */
const PLAIN: Readonly<Record<string, readonly (readonly [text: string, family: string])[]>> = {
  '<': [
    ['<<SYS>>', 'llama'],
    ['<</SYS>>', 'llama'],
    ['<start_of_turn>', 'gemma'],
    ['<end_of_turn>', 'gemma'],
    ['<start_of_image>', 'gemma'],
  ],
  '[': [
    ['[INST]', 'mistral'],
    ['[/INST]', 'mistral'],
    ['[AVAILABLE_TOOLS]', 'mistral'],
    ['[/AVAILABLE_TOOLS]', 'mistral'],
    ['[TOOL_CALLS]', 'mistral'],
    ['[TOOL_RESULTS]', 'mistral'],
    ['[/TOOL_RESULTS]', 'mistral'],
    ['[SYSTEM_PROMPT]', 'mistral'],
    ['[/SYSTEM_PROMPT]', 'mistral'],
    ['[gMASK]', 'glm'],
  ],
};

export const control: Detector = {
  name: 'control',
  version: 2,
  rules: [...Object.keys(FAMILIES), 'mistral', 'gemma'].map((id) => ({
    id,
    finds: `a control token as ${id} spells it`,
  })),
  triggers: '<[',
  gates: {
    '<': { next: gateOf(`|${(PLAIN['<'] ?? []).map(([spelling]) => spelling.charAt(1)).join('')}`) },
    '[': { next: gateOf(`|${(PLAIN['['] ?? []).map(([spelling]) => spelling.charAt(1)).join('')}`) },
  },
  at(text, i, report) {
    const next = text.charCodeAt(i + 1);
    if (next === 124) return piped(text, i, report);
    // Markup of pages and lists begins with these signs too: look at the next one first.
    const open = text.charCodeAt(i) === 60;
    if (
      open ? next !== 60 && next !== 115 && next !== 101 : !(next === 47 || (next >= 65 && next <= 90) || next === 103)
    )
      return;
    for (const [spelling, family] of PLAIN[open ? '<' : '['] ?? [])
      if (text.startsWith(spelling, i)) report(family, i, i + spelling.length);
  },
};
