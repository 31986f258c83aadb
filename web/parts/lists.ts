/** What lists share: the words of a query, its mistakes, the way to older rows. */

import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { link } from './forms.ts'
import type { Limits } from './marks.ts'
import { note } from './marks.ts'
import { count } from './words.ts'

/** Rows of a page. */
export const ROWS = 50

/** Thresholds of all domains: where the meters draw their ticks. */
export function limitsOf(site: Site): Limits {
  return {
    hold: Number(site.admin.setting('policy.hold').value),
    reject: Number(site.admin.setting('policy.reject').value),
  }
}

export type Tab = { readonly words: string; readonly query: string }

/** Ready-made queries as links; the one in use is marked. */
export function tabs(path: string, label: string, items: readonly Tab[], query: string): Html {
  return html`<nav class="seg" aria-label="${label}">${items.map(
    (tab) =>
      html`<a href="${link(path, { q: tab.query })}"${tab.query === query ? html` aria-current="true"` : ''}>${tab.words}</a>`,
  )}</nav>`
}

/** The parts of a query that were not understood; the rest is applied. */
export function mistakes(sentences: readonly string[]): Html | '' {
  if (sentences.length === 0) return ''
  const most = sentences.slice(0, 5).join(' ')
  return note('warn', html`<b>Part of the search is not used.</b> ${most}`)
}

type Turn = {
  readonly path: string
  readonly query: string
  /** What else the address holds. */
  readonly also?: Readonly<Record<string, string>>
  readonly cursor: string | null
  /** Rows before this page; as the address says, for the words only. */
  readonly before: number
  readonly rows: number
  readonly total: number
}

/** `1 to 50 of 80,542`, and the next page. */
export function turning(turn: Turn): Html | '' {
  const { path, query, also = {}, cursor, before, rows, total } = turn
  if (rows === 0 && before === 0) return ''
  const only = before === 0 && cursor === null
  const older =
    cursor === null
      ? html`<span class="btn small" aria-disabled="true">Older</span>`
      : html`<a class="btn small" href="${link(path, { q: query, ...also, cursor, before: before + rows })}">Older</a>`
  const newest =
    before === 0
      ? html`<span class="btn small" aria-disabled="true">Newest</span>`
      : html`<a class="btn small" href="${link(path, { q: query, ...also })}">Newest</a>`
  const words =
    rows === 0 ? '' : `${count(before + 1)} to ${count(before + rows)} of ${count(total)}`
  return html`<div class="head"><small>${words}</small>${only ? '' : html`<div class="acts">${newest}${older}</div>`}</div>`
}

/** Rows before this page, from the address; nonsense is none. */
export function beforeOf(text: string | undefined): number {
  const value = Number(text ?? 0)
  return Number.isInteger(value) && value > 0 && value < 1e9 ? value : 0
}
