/** Medians, percentiles, and tables of them. */

export function median(values: readonly number[]): number {
  return percentile(values, 0.5)
}

/** The value below which `share` (0..1) of them lie; NaN of nothing. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  if (share === 0.5 && sorted.length > 0 && sorted.length % 2 === 0) {
    return ((sorted[sorted.length / 2 - 1] ?? 0) + (sorted[sorted.length / 2] ?? 0)) / 2
  }
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** Three significant digits, no exponent. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '-'
  const size = Math.abs(value)
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2)
}

/** `median (least-most)`; the median alone when all are equal or there is one. */
export function spread(values: readonly number[]): string {
  if (values.length === 0) return '-'
  const [least, most] = [Math.min(...values), Math.max(...values)]
  const range = `${short(least)}-${short(most)}`
  return short(least) === short(most) ? short(least) : `${short(median(values))} (${range})`
}

/** A Markdown table. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`
  const rule = head.map((_, index) => (index === 0 ? '---' : '---:'))
  return `${line(head)}|${rule.join('|')}|\n${rows.map(line).join('')}`
}
