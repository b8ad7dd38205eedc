// The fixed texts of the system and developer messages (facts E3, E4).
import { type FunctionTool, type JsonSchema, type ToolNamespace, toolsSection } from './tool-types.js';
import type { Effort } from './types.js';

export interface SystemText {
  readonly identity?: string;
  readonly knowledgeCutoff?: string;
  /** YYYY-MM-DD; left out by default, so that the same conversation gives the same tokens every day. */
  readonly currentDate?: string;
  readonly effort?: Effort;
  readonly channels?: readonly string[];
  /** Built-in tools, described in the system message. */
  readonly builtins?: readonly ToolNamespace[];
  /** Whether the developer message offers functions. */
  readonly functions?: boolean;
}

export function systemText(s: SystemText = {}): string {
  const top = [
    s.identity ?? 'You are ChatGPT, a large language model trained by OpenAI.',
    `Knowledge cutoff: ${s.knowledgeCutoff ?? '2024-06'}`,
  ];
  if (s.currentDate !== undefined) top.push(`Current date: ${s.currentDate}`);
  const sections = [top.join('\n'), `Reasoning: ${s.effort ?? 'medium'}`];
  if (s.builtins && s.builtins.length > 0) sections.push(toolsSection(s.builtins));
  const channels =
    `# Valid channels: ${(s.channels ?? ['analysis', 'commentary', 'final']).join(', ')}. ` +
    'Channel must be included for every message.';
  sections.push(
    s.functions ? `${channels}\nCalls to these tools must go to the commentary channel: 'functions'.` : channels,
  );
  return sections.join('\n\n');
}

export interface ResponseFormat {
  readonly name: string;
  readonly description?: string;
  readonly schema: JsonSchema;
}
export interface DeveloperText {
  readonly instructions?: string;
  readonly tools?: readonly FunctionTool[];
  readonly responseFormats?: readonly ResponseFormat[];
}

/** @returns '' when there is nothing to say: then no developer message is written. */
export function developerText(d: DeveloperText): string {
  const sections: string[] = [];
  if (d.instructions !== undefined && d.instructions !== '') sections.push('# Instructions', d.instructions);
  if (d.tools && d.tools.length > 0) sections.push(toolsSection([{ name: 'functions', tools: d.tools }]));
  if (d.responseFormats && d.responseFormats.length > 0) {
    sections.push('# Response Formats');
    for (const f of d.responseFormats)
      sections.push(
        `## ${f.name}`,
        `${f.description === undefined ? '' : `// ${f.description}\n`}${JSON.stringify(f.schema)}`,
      );
  }
  return sections.join('\n\n');
}
