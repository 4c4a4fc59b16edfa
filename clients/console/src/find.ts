/** The page's element with that id. */
export function find<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`console.html has no element #${id}`);
  return found as T;
}
