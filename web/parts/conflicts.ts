/** Two values of one thing: who set which, where and when, and the button that keeps it. */
import type { ConflictRow } from '../../src/admin/contract.ts'
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { cellOf, FIELD_LABELS, titleOf, wordsOf } from './changes.ts'
import { csrf, mayChange, SWAP } from './forms.ts'
import { glyph } from './marks.ts'
import { clockTime, day } from './words.ts'

/** `“Hold from score” of shop.example`. */
export function conflictTitle(key: string): string {
  const cell = cellOf(key)
  if (cell.kind === 'setting') return `“${titleOf(cell)}”`
  const field = cell.field === null ? null : FIELD_LABELS[cell.field]
  return field === undefined || field === null ? titleOf(cell) : `“${field}” of ${cell.name}`
}

/** Conflicts whose key begins so; on the pages where the values are edited. */
export function conflictsIn(
  site: Site,
  visit: Visit,
  prefixes: readonly string[],
  back: string,
): readonly Html[] {
  return site.admin
    .conflicts()
    .filter(({ key }) => prefixes.some((prefix) => key === prefix || key.startsWith(`${prefix}/`)))
    .slice(0, 5)
    .map((row, id) => conflictCard(site, visit, row, { back, id }))
}

type About = {
  readonly back: string
  /** Number of the card on its page. */
  readonly id: number
}

export function conflictCard(
  site: Site,
  visit: Visit,
  { key, sides }: ConflictRow,
  { back, id }: About,
): Html {
  const cell = cellOf(key)
  const nowMs = site.clock.wallMs()
  const keep = mayChange(site, visit)
  const some = sides.length === 2 ? 'two' : String(sides.length)
  const nodes = [...new Set(sides.map(({ node }) => node))]
  const forms = sides.map((side, i) => {
    const value = side.value === null ? 'Removed' : wordsOf(cell, side.value)
    // A long value is read as text; a short one is the headline.
    const shown =
      value.length > 40
        ? html`<p class="wrap">${value}</p>`
        : html`<span class="val">${value}</span>`
    const said = html`${shown}<p>${i === 0 ? 'In force now' : 'Not in force'}. Set by <b>${side.by}</b> on ${side.node}, ${day(side.atMs, nowMs)} ${clockTime(side.atMs, true)}</p>`
    if (!keep) return html`<div>${said}</div>`
    const what = side.value === null ? 'it removed' : value.length > 20 ? 'this' : value
    return html`<form method="post" action="/conflicts/keep" hx-post="/conflicts/keep" ${SWAP}>${csrf(visit)}<input type="hidden" name="key" value="${key}"><input type="hidden" name="side" value="${side.id}"><input type="hidden" name="back" value="${back}">${said}<button class="btn">Keep ${what}</button></form>`
  })
  return html`<section class="card conflict" id="conflict-${id}" aria-labelledby="cf-${id}"><header><h2 id="cf-${id}"><span class="c held">${glyph('held')}</span>&nbsp; ${conflictTitle(key)} has ${some} values</h2><small>It was set ${sides.length === 2 ? 'twice' : 'several times'} while ${nodes.length === 2 ? nodes.join(' and ') : 'nodes'} were apart</small></header><div class="sides">${forms}</div></section>`
}
