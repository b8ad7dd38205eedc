// A Modelfile for Ollama. What it says of prompts is harmony as src/harmony/render.ts writes it, without tools: Ollama
// takes a template with harmony's marks for its own renderer where it has one.
import { systemText } from '../../harmony/prompt-text.js';

/** Sampling as gpt-oss was released with. */
const PARAMETERS = 'PARAMETER temperature 1\nPARAMETER top_p 1\n';
const [BEFORE = '', AFTER = ''] = systemText().split('medium');
const EFFORT = '{{ if .ThinkLevel }}{{ .ThinkLevel }}{{ else }}medium{{ end }}';
const TEMPLATE = `TEMPLATE """<|start|>system<|message|>${BEFORE}${EFFORT}${AFTER}<|end|>
{{- if .System }}<|start|>developer<|message|># Instructions

{{ .System }}<|end|>{{ end }}
{{- range .Messages }}
{{- if eq .Role "user" }}<|start|>user<|message|>{{ .Content }}<|end|>
{{- else if eq .Role "assistant" }}<|start|>assistant<|channel|>final<|message|>{{ .Content }}<|end|>
{{- end }}
{{- end }}<|start|>assistant"""
`;

/** For a whole model. */
export const modelfile = (file: string): string =>
  `# ollama create NAME -f Modelfile\nFROM ./${file}\n${TEMPLATE}${PARAMETERS}`;

/** For an adapter beside its base. */
export const adapterModelfile = (file: string, base: string): string =>
  '# ollama create NAME -f Modelfile\n' +
  '# Put the base beside it, as `temper export --format gguf` writes it. An Ollama whose ' +
  'engine takes no adapters for\n' +
  '# this architecture says so: export the merged model (gguf) for it.\n' +
  `FROM ./${base}\nADAPTER ./${file}\n${TEMPLATE}${PARAMETERS}`;
