/** A list in a sentence, cut where nobody would read on. */

/** `a, b and 3 more`. */
export function some(items: readonly string[], most = 2): string {
  if (items.length <= most) return items.join(', ')
  return `${items.slice(0, most).join(', ')} and ${items.length - most} more`
}
