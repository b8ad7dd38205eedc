// The Jinja template of a base that brings none: harmony as src/harmony renders it, without tools, which it refuses. A
// server that finds no template in a file takes one of its own, and asks the model in a form it was never trained on.
import { systemText } from '../../harmony/prompt-text.js';

const [BEFORE = '', AFTER = ''] = systemText().split('medium');
/** A string of Jinja. */
const quoted = (text: string): string => JSON.stringify(text);

/** Leading instructions are one developer message, later ones are messages of their own; thoughts are left out. */
export const PLAIN_TEMPLATE = `
{%- if tools %}{{ raise_exception("this template has no tools: give the server one that has") }}{% endif %}
{%- set ns = namespace(lead=true, text="") %}
{%- for m in messages %}
{%- if m.role != "system" and m.role != "developer" %}{% set ns.lead = false %}{% endif %}
{%- if ns.lead %}{% set ns.text = ns.text + ("\\n\\n" if ns.text else "") + m.content %}{% endif %}
{%- endfor %}
{{- "<|start|>system<|message|>" + ${quoted(BEFORE)} + (reasoning_effort or "medium") + ${quoted(AFTER)} + "<|end|>" }}
{%- if ns.text %}{{ "<|start|>developer<|message|># Instructions\\n\\n" + ns.text + "<|end|>" }}{% endif %}
{%- set ns.lead = true %}
{%- for m in messages %}
{%- if m.role == "user" %}{{ "<|start|>user<|message|>" + m.content + "<|end|>" }}
{%- elif m.role == "assistant" %}{{ "<|start|>assistant<|channel|>final<|message|>" + m.content + "<|end|>" }}
{%- elif m.role != "system" and m.role != "developer" %}{{ raise_exception("role " + m.role + " is not known") }}
{%- elif not ns.lead %}{{ "<|start|>developer<|message|># Instructions\\n\\n" + m.content + "<|end|>" }}
{%- endif %}
{%- if m.role != "system" and m.role != "developer" %}{% set ns.lead = false %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|start|>assistant" }}{% endif %}`.trimStart();
