// The APIs that are served, a line each.
import type { Api } from './api.js';
import { chat } from './chat.js';
import { completions } from './completions.js';
import { messages } from './messages.js';
import { models } from './models.js';
import { responses } from './responses.js';

export const APIS: readonly Api[] = [chat, completions, responses, messages, models];
