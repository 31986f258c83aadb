/** What people read: tables, ages, sizes. Nothing in it can steer a terminal. */
import type { World } from './world.ts'

/**
 * Text of strangers made safe for a terminal: controls, escapes and characters that turn the
 * direction of writing become a visible dot.
 */
export function plain(text: string): string {
  return text.replace(STEERING, '·')
}

const STEERING = /[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g
/** The same less what JSON escapes anyway: its own line ends must stay. */
const STEERING_IN_JSON = /[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g

/** JSON for a script or a terminal: what `plain` replaces is escaped, so it stays valid JSON. */
export function jsonText(value: unknown): string {
  const escaped = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`
  return `${JSON.stringify(value, null, 2).replace(STEERING_IN_JSON, escaped)}\n`
}

/** Rows in columns under a head. The last column is cut when a terminal is too narrow. */
export function table(
  world: World,
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const clean = rows.map((row) => row.map(plain))
  const widths = head.map((title, column) =>
    Math.max(title.length, ...clean.map((row) => Bun.stringWidth(row[column] ?? ''))),
  )
  const line = (cells: readonly string[]): string => {
    const text = cells.map((cell, column) => {
      const pad = (widths[column] ?? 0) - Bun.stringWidth(cell)
      return column === cells.length - 1 ? cell : cell + ' '.repeat(Math.max(0, pad))
    })
    return cut(text.join('  '), world.terminal?.columns ?? Number.POSITIVE_INFINITY).trimEnd()
  }
  return [bold(world, line(head)), ...clean.map(line), ''].join('\n')
}

/** `label  value` lines; a null value leaves its line out. */
export function facts(pairs: readonly (readonly [label: string, value: string | null])[]): string {
  const kept = pairs.filter(([, value]) => value !== null)
  const width = Math.max(0, ...kept.map(([label]) => label.length))
  return kept.map(([label, value]) => `${label.padEnd(width)}  ${plain(value ?? '')}\n`).join('')
}

function cut(text: string, columns: number): string {
  if (Bun.stringWidth(text) <= columns) return text
  let kept = ''
  for (const char of text) {
    if (Bun.stringWidth(kept + char) >= columns) break
    kept += char
  }
  return `${kept}…`
}

export function bold(world: World, text: string): string {
  return world.terminal?.colour === true ? `\x1b[1m${text}\x1b[0m` : text
}

/** `3 d 4 h`, `12 min`, `8 s`: two units at most. */
export function span(ms: number): string {
  const units: readonly (readonly [string, number])[] = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['min', 60_000],
    ['s', 1_000],
  ]
  const at = units.findIndex(([, size]) => ms >= size)
  const [name, size] = units[at] ?? ['s', 1_000]
  const rest = units[at + 1]
  const whole = `${Math.floor(ms / size)} ${name}`
  const more = rest === undefined ? 0 : Math.floor((ms % size) / rest[1])
  return more === 0 || rest === undefined || at >= 2 ? whole : `${whole} ${more} ${rest[0]}`
}

/** How long ago an ISO time is; `-` for none. */
export function ago(world: World, iso: string | null | undefined): string {
  if (iso === null || iso === undefined) return '-'
  return span(Math.max(0, world.clock.wallMs() - Date.parse(iso)))
}

/** Bytes in the unit that reads best, as `12.3 MB`. */
export function size(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB']
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3))
  const value = bytes / 1_000 ** power
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`
}
