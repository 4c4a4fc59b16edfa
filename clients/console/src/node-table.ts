/** The table of the servers that share a bus. */

import { type ServerNode } from './api.ts';
import { find } from './find.ts';
import { sayMs } from './words.ts';

/** Shows them; hides the section where there are none. */
export function drawNodes(nodes: readonly ServerNode[]): void {
  find('nodes-section').hidden = nodes.length === 0;
  find('nodes').replaceChildren(...nodes.map(row));
}

function row(node: ServerNode): HTMLTableRowElement {
  const line = document.createElement('tr');
  cell(line, node.name, '');
  cell(line, node.role, '');
  cell(line, node.version, 'wide');
  cell(line, node.term ?? '–', 'wide number');
  cell(line, node.connections, 'number');
  cell(line, node.shards ?? 'all', 'wide number');
  cell(line, sayMs(node.lag_ms), 'number');
  cell(line, `${sayMs(node.seen_ms)} ago`, 'number');
  // Two nodes may have one name.
  line.title = node.id;
  return line;
}

function cell(line: HTMLTableRowElement, text: string | number, kind: string): void {
  const made = line.insertCell();
  made.textContent = String(text);
  made.className = kind;
}
